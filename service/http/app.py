"""`create_app` builds the Litestar application: it connects the parts of the service, and starts and ends them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import anyio
import structlog
from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError, SettingsError, UnknownImageError
from service.http import headers
from service.http.auth import BearerAuth
from service.http.openapi.document import CONVENTIONS, OpenAPIJson, operation_id
from service.http.problem_details import http_exception_response, replay_response, service_error_response, unexpected_error_response
from service.http.routes.guides import guide_router
from service.http.routes.health import get_health, get_livez
from service.http.routes.images import (
    create_urls,
    delete_image,
    delete_tombstone,
    get_image,
    ingest_image,
    list_images,
    lookup_images,
    update_image,
)
from service.http.routes.pages import page_router
from service.http.routes.pull import create_pull_url, get_pull
from service.http.routes.renditions import get_rendition
from service.http.routes.uploads import create_upload_url, take_upload
from service.images.info import Limits, codec_bytes
from service.library.documents import Documents
from service.library.image_store import ImageStore
from service.library.ingest import Ingester
from service.library.intermediates import Intermediates
from service.library.listing import Listing
from service.library.render_failures import RenderFailures
from service.library.renditions import Renditions
from service.library.takedowns import Cdn, Purge, Takedowns
from service.library.upload_tickets import UploadTickets
from service.library.uploads import UploadSpool
from service.library.warming import Warmer
from service.library.warming_queue import WarmingQueue
from service.ops.health import Health
from service.ops.signing_keys import SigningKeyMonitor
from service.process import end_at_once
from service.pull.sources import Sources
from service.rendering.pool import RenderPool
from service.settings.sections import OPEN_LADDER, RenderingSettings, Settings
from service.settings.signing_key import development_key
from service.storage.object_store import Storage, open_storage
from service.storage.quota import DerivedQuota
from service.urls.signing import Signer, UrlBuilder
from service.urls.unsigned import UnsignedTransforms, unsigned_transforms
from service.urls.upload_ticket import UPLOADS_PATH, parse_upload_path

log = structlog.get_logger(__name__)


class Application(NamedTuple):
    """The ASGI application, and what the layer around it needs."""

    app: ASGIApp
    refresh_takedowns: Callable[[], Awaitable[None]]
    """Reads the takedowns of other processes at once, in place of at the next poll."""
    authenticate: Callable[[bytes, str], None]
    """Checks the token of a request that changes something, or the signature of its upload URL, given its raw path and `Authorization`.

    Raises `UnauthorizedError` and `BadSignatureError`.
    """


def create_app(settings: Settings, purge: Purge, watch: Callable[[], Coroutine[Any, Any, None]]) -> Application:
    """Return the application; raises `SettingsError` for a store that cannot be opened or a key that cannot be read.

    `purge`: called after each poll for takedowns with the digests of the images that were taken down since the last one; often none.
    `watch`: run as a task while the application runs, and canceled at its end.
    """
    rendering = settings.rendering
    storage = open_storage(settings.storage.url, os.environ)
    limits = Limits(
        settings.limits.max_pixels,
        settings.limits.max_whole_pixels,
        settings.limits.max_output_pixels,
        settings.limits.max_frames,
        codec_bytes(rendering.memory_bytes),
    )
    pool = _render_pool(rendering)
    keys = settings.auth.signing_keys or (development_key(settings.storage.data),)
    unsigned = _unsigned_transforms(settings)
    signer = Signer(keys, unsigned)
    signing_key_monitor = SigningKeyMonitor(storage, keys, " ".join(filter(None, (settings.fly.region, settings.fly.machine_id))))
    image_store = ImageStore(storage)
    takedowns = Takedowns(image_store, purge, _cdn(settings))
    documents = Documents(image_store, takedowns)
    intermediates = Intermediates(image_store, pool, limits=limits)
    warming_queue = WarmingQueue(image_store) if rendering.warm_formats else None
    spool = UploadSpool(settings.storage.data / "spool")
    ingester = Ingester(image_store, documents, pool, intermediates, takedowns, spool=spool, warming=warming_queue, limits=limits)
    renditions = Renditions(image_store, pool, documents, intermediates, takedowns, limits=limits, wait_seconds=rendering.wait_seconds)
    listing = Listing(storage, image_store, takedowns)
    upload_tickets = UploadTickets(storage)
    sources = _sources(settings, storage, documents, ingester)
    quota = DerivedQuota(storage, settings.storage.renditions_bytes) if settings.storage.renditions_bytes else None
    health = Health(settings, storage, pool, signing_key_monitor, version("darkroom"))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        with end_at_once():
            spool.clear()
            if removed := await storage.remove_orphaned_temp_files():
                log.info("removed files of interrupted writes", files=removed)
        async with pool.running(), anyio.create_task_group() as tasks:
            background: list[Callable[[], Coroutine[Any, Any, None]]] = [
                watch,
                health.watch,
                health.watch_renders,
                RenderFailures(storage, pool.circuit_breaker).watch,
                takedowns.watch,
                signing_key_monitor.watch,
                listing.backfill,
                upload_tickets.watch,
            ]
            if quota is not None:
                background.append(quota.watch)
            if warming_queue is not None:
                formats, widths = rendering.warm_formats, rendering.widths
                warmer = Warmer(
                    warming_queue, documents, renditions, intermediates, pool, limits=limits, formats=formats, default_widths=widths
                )
                background.append(warmer.run)
            for task in background:
                tasks.start_soon(task)
            try:
                yield
            finally:
                health.draining = True
                await renditions.aclose()
                await intermediates.aclose()
                if sources is not None:
                    await sources.aclose()
                tasks.cancel_scope.cancel()

    auth = BearerAuth(settings.auth.tokens)
    dependencies: dict[str, object] = {
        "auth": auth,
        "health": health,
        "listing": listing,
        "url_builder": UrlBuilder(signer, settings.server.public_url, limits, rendering.widths),
        "documents": documents,
        "ingester": ingester,
        "sources": sources,
        "renditions": renditions,
        "settings": settings,
        "signer": signer,
        "takedowns": takedowns,
        "upload_tickets": upload_tickets,
    }
    app = Litestar(
        [
            get_health,
            get_livez,
            ingest_image,
            list_images,
            lookup_images,
            get_image,
            update_image,
            create_urls,
            delete_image,
            delete_tombstone,
            create_upload_url,
            take_upload,
            create_pull_url,
            get_pull,
            get_rendition,
            page_router(),
            guide_router(settings, unsigned),
        ],
        dependencies={name: Provide(_provider(value), use_cache=True, sync_to_thread=False) for name, value in dependencies.items()},
        exception_handlers={
            UnknownImageError: replay_response if settings.is_replica else service_error_response,
            ServiceError: service_error_response,
            HTTPException: http_exception_response,
            Exception: unexpected_error_response,
        },
        lifespan=[lifespan],
        # Only the JSON: Litestar's plugins for pages load scripts from other hosts, so `/docs` is a page of our own.
        openapi_config=OpenAPIConfig(
            "Darkroom",
            version("darkroom"),
            description=CONVENTIONS,
            path="/docs/openapi.json",
            render_plugins=[OpenAPIJson(path="/")],
            use_handler_docstrings=True,
            operation_id_creator=operation_id,
        ),
        # `service.http.bodies` limits bodies while it reads them, and its errors say what to do.
        request_max_body_size=None,
        logging_config=None,
    )
    return Application(_with_security_headers(app), takedowns.refresh, partial(_authenticate, auth, signer))


def _authenticate(auth: BearerAuth, signer: Signer, raw_path: bytes, authorization: str) -> None:
    if raw_path.startswith(f"{UPLOADS_PATH}/".encode("ascii")):
        signer.verify_ticket(*parse_upload_path(raw_path))
    else:
        auth.granted_scopes(authorization)


def _unsigned_transforms(settings: Settings) -> UnsignedTransforms:
    words = settings.auth.unsigned
    return unsigned_transforms(
        [word for word in words if word != OPEN_LADDER],
        open_ladder=OPEN_LADDER in words,
        widths=settings.rendering.widths,
        variants=tuple(settings.rendering.variants.values()),
    )


def _render_pool(rendering: RenderingSettings) -> RenderPool:
    return RenderPool(
        slots=rendering.processes,
        queue_limit=rendering.queue_limit,
        memory_bytes=rendering.memory_bytes,
        render_seconds=rendering.render_seconds,
        wait_seconds=rendering.wait_seconds,
    )


def _sources(settings: Settings, storage: Storage, documents: Documents, ingester: Ingester) -> Sources | None:
    if not settings.pull.hosts:
        return None
    # Imported only if images are pulled: it imports an HTTP client, and the server should start quickly.
    from service.pull.fetcher import AllowedHosts, SourceFetcher  # noqa: PLC0415

    try:
        fetcher = SourceFetcher(AllowedHosts.parse(settings.pull.hosts), max_bytes=settings.limits.max_upload_bytes)
    except ValueError as error:
        raise SettingsError(f"DARKROOM_PULL_HOSTS: {error}") from error
    return Sources(storage, documents, ingester, fetcher, fresh_seconds=settings.pull.fresh_seconds)


def _cdn(settings: Settings) -> Cdn | None:
    if not settings.cloudflare.zone:
        return None
    # Imported only if there is a CDN: it imports an HTTP client, and the server should start quickly.
    from service.ops.cdn import Cloudflare  # noqa: PLC0415

    try:
        return Cloudflare(settings.cloudflare.zone, settings.cloudflare.token, url=settings.cloudflare.url)
    except ValueError as error:
        raise SettingsError(f"DARKROOM_CLOUDFLARE_ZONE, DARKROOM_CLOUDFLARE_TOKEN: {error}") from error


def _provider(value: object):  # type: ignore[no-untyped-def]
    def provide() -> object:
        return value

    return provide


def _with_security_headers(app: ASGIApp) -> ASGIApp:
    """Add the fields of every response, also of errors of the router, which Litestar's own hooks and middleware do not see."""
    fields = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.SECURITY.items()]

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *fields]
            await send(message)

        await app(scope, receive, send_secured)

    return middleware
