"""create_app(settings): wiring and lifespan, nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
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
from service.http.openapi.document import CONVENTIONS, OpenAPIJson
from service.http.problem_details import elsewhere_answer, http_exception_answer, service_error_answer, unexpected_answer
from service.http.routes import health, images, pull, renditions
from service.http.routes import listing as listing_routes
from service.http.routes import takedowns as takedowns_routes
from service.http.routes.pages import page_router
from service.images.info import Limits, codec_bytes
from service.library.documents import Documents
from service.library.image_store import ImageStore
from service.library.ingest import Ingester
from service.library.intermediates import Intermediates
from service.library.listing import Listing
from service.library.render_failures import RenderFailures
from service.library.renditions import Renditions
from service.library.takedowns import Cdn, Purge, Takedowns
from service.library.uploads import UploadSpool
from service.library.warming import Warmer
from service.library.warming_queue import WarmingQueue
from service.ops.health import Health
from service.ops.signing_keys import SigningKeyMonitor
from service.process import end_at_once
from service.pull.sources import Sources
from service.rendering.pool import RenderPool
from service.settings.sections import Settings
from service.settings.signing_key import development_key
from service.storage.object_store import Storage, open_storage
from service.storage.quota import DerivedQuota
from service.urls.signing import Signer, UrlBuilder

log = structlog.get_logger(__name__)


class Origin(NamedTuple):
    """The application, what makes it look for takedowns by other processes at once, and its access control."""

    app: ASGIApp
    look_for_takedowns: Callable[[], Awaitable[None]]
    access: images.Access


def create_app(settings: Settings, purge: Purge, watch: Callable[[], Coroutine[Any, Any, None]]) -> Origin:
    """Return the origin; raises `SettingsError` for a store that cannot be opened or a key that cannot be read.

    `purge` is called with the digests of images that have been taken down, and with none as often as nothing has been.
    `watch` is run from the start of the application to its end, and cancelled then.
    """
    storage = open_storage(settings.storage.url, os.environ)
    limits = Limits(
        settings.limits.max_pixels,
        settings.limits.max_whole_pixels,
        settings.limits.max_output_pixels,
        settings.limits.max_frames,
        codec_bytes(settings.rendering.memory_bytes),
    )
    pool = RenderPool(
        slots=settings.rendering.processes,
        queue_limit=settings.rendering.queue_limit,
        memory_bytes=settings.rendering.memory_bytes,
        render_seconds=settings.rendering.render_seconds,
        wait_seconds=settings.rendering.wait_seconds,
    )
    keys = settings.auth.signing_keys or (development_key(settings.storage.data),)
    signer = Signer(keys, settings.auth.unsigned_transforms)
    signing_key_monitor = SigningKeyMonitor(storage, keys, " ".join(filter(None, (settings.fly.region, settings.fly.machine_id))))
    image_store = ImageStore(storage)
    takedowns = Takedowns(image_store, purge, _cdn(settings))
    documents = Documents(image_store, takedowns)
    intermediates = Intermediates(image_store, pool, limits=limits)
    to_warm = WarmingQueue(image_store) if settings.rendering.warm_formats else None
    spool = UploadSpool(settings.storage.data / "spool")
    ingester = Ingester(image_store, documents, pool, intermediates, takedowns, spool=spool, warming=to_warm, limits=limits)
    found = Renditions(image_store, pool, documents, intermediates, takedowns, limits=limits, wait_seconds=settings.rendering.wait_seconds)
    listing = Listing(storage, image_store, takedowns)
    sources = _sources(settings, storage, documents, ingester)
    budget = DerivedQuota(storage, settings.storage.renditions_bytes) if settings.storage.renditions_bytes else None
    vitals = Health(settings, storage, pool, signing_key_monitor, version("darkroom"))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        with end_at_once():
            spool.clear()
            if leftovers := await storage.remove_orphaned_temp_files():
                log.info("removed what killed writes had left", files=leftovers)
        async with pool.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            tasks.start_soon(vitals.watch)
            tasks.start_soon(vitals.watch_renders)
            tasks.start_soon(RenderFailures(storage, pool.circuit_breaker).watch)
            tasks.start_soon(takedowns.watch)
            tasks.start_soon(signing_key_monitor.watch)
            if budget is not None:
                tasks.start_soon(budget.watch)
            tasks.start_soon(listing.backfill)
            if to_warm is not None:
                warmer = Warmer(to_warm, documents, found, intermediates, pool, limits=limits, formats=settings.rendering.warm_formats)
                tasks.start_soon(warmer.run)
            try:
                yield
            finally:
                vitals.draining = True
                await found.aclose()
                await intermediates.aclose()
                if sources is not None:
                    await sources.aclose()
                tasks.cancel_scope.cancel()

    access = images.Access(settings.auth.tokens)
    parts: dict[str, object] = {
        "access": access,
        "health": vitals,
        "listing": listing,
        "url_builder": UrlBuilder(signer, settings.server.public_url, limits),
        "documents": documents,
        "ingester": ingester,
        "sources": sources,
        "renditions": found,
        "settings": settings,
        "signer": signer,
        "takedowns": takedowns,
    }
    origin = Litestar(
        [
            health.health,
            health.livez,
            images.ingest,
            listing_routes.recent,
            listing_routes.known,
            images.document,
            images.change,
            images.urls,
            takedowns_routes.take_down,
            takedowns_routes.lift,
            pull.pull_url,
            pull.pull,
            renditions.rendition,
            page_router(),
        ],
        dependencies={name: Provide(_giving(part), use_cache=True, sync_to_thread=False) for name, part in parts.items()},
        exception_handlers={
            UnknownImageError: elsewhere_answer if settings.is_replica else service_error_answer,
            ServiceError: service_error_answer,
            HTTPException: http_exception_answer,
            Exception: unexpected_answer,
        },
        lifespan=[lifespan],
        # The description alone, and a page of ours for people: every page plugin loads its scripts from other hosts.
        openapi_config=OpenAPIConfig(
            "Darkroom",
            version("darkroom"),
            description=CONVENTIONS,
            path="/docs/openapi.json",
            render_plugins=[OpenAPIJson(path="/")],
            use_handler_docstrings=True,
        ),
        # Bodies are bounded while they stream, in `service.http.bodies`, which also says what to do.
        request_max_body_size=None,
        logging_config=None,
    )
    return Origin(_with_security_headers(origin), takedowns.refresh, access)


def _sources(settings: Settings, storage: Storage, documents: Documents, ingester: Ingester) -> Sources | None:
    if not settings.pull.hosts:
        return None
    # As in `_cdn`.
    from service.pull.fetcher import AllowedHosts, SourceFetcher  # noqa: PLC0415

    try:
        fetcher = SourceFetcher(AllowedHosts.parse(settings.pull.hosts), max_bytes=settings.limits.max_upload_bytes)
    except ValueError as error:
        raise SettingsError(f"DARKROOM_PULL_HOSTS: {error}") from error
    return Sources(storage, documents, ingester, fetcher, fresh_seconds=settings.pull.fresh_seconds)


def _cdn(settings: Settings) -> Cdn | None:
    if not settings.cloudflare.zone:
        return None
    # Imported by those alone who have one: it brings an HTTP client, and a start should be short.
    from service.ops.cdn import Cloudflare  # noqa: PLC0415

    try:
        return Cloudflare(settings.cloudflare.zone, settings.cloudflare.token, url=settings.cloudflare.url)
    except ValueError as error:
        raise SettingsError(f"DARKROOM_CLOUDFLARE_ZONE, DARKROOM_CLOUDFLARE_TOKEN: {error}") from error


def _giving(part: object):  # type: ignore[no-untyped-def]
    def provide() -> object:
        return part

    return provide


def _with_security_headers(app: ASGIApp) -> ASGIApp:
    """Add what every answer carries, errors of the router included, which Litestar's own hooks and middleware do not see."""
    fields = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.SECURITY.items()]

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *fields]
            await send(message)

        await app(scope, receive, send_secured)

    return middleware
