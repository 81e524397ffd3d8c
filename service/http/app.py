"""`create_app` builds the Litestar application: it connects the parts of the service, and starts and ends them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import anyio
import structlog
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service import instruments
from service.concurrency.current_client import working_for
from service.concurrency.spans import stage
from service.errors import BadSignatureError, OverloadedError, Problem, ServiceError, SettingsError, UnauthorizedError, UnknownImageError
from service.http import headers
from service.http.access import Access
from service.http.clients import ClientAddresses
from service.http.openapi.document import CONVENTIONS, OpenAPIJson, operation_id
from service.http.problem_details import (
    allowed_methods,
    http_exception_response,
    replay_response,
    service_error_response,
    unexpected_error_response,
)
from service.http.routes.from_source import get_from_source
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
from service.http.routes.renditions import RenditionServing, get_rendition
from service.http.routes.sources import create_source_url, list_objects, list_sources
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
from service.process import end_at_once, refuse_start
from service.rendering.cost_file import CostFile
from service.rendering.pool import RenderPool
from service.settings.environment import Configuration
from service.settings.sections import OPEN_LADDER, RenderingSettings, Settings
from service.sources.opening import open_sources
from service.sources.sources import Sources
from service.storage.disk import unusable_folder
from service.storage.object_store import Storage, open_storage
from service.storage.quota import DerivedQuota
from service.urls.rendition_url import AUTO, parse_rendition_url
from service.urls.signing import Signer, UrlBuilder
from service.urls.unsigned import UnsignedTransforms, unsigned_transforms
from service.version import VERSION

log = structlog.get_logger(__name__)


class Application(NamedTuple):
    """The ASGI application, and what the layer around it needs."""

    app: ASGIApp
    refresh_takedowns: Callable[[], Awaitable[None]]
    """Reads the takedowns of other processes at once, in place of at the next poll."""
    access: Access
    refuse_render: Callable[[bytes], ServiceError | None]
    """Returns the error of a request for a rendition that would only be refused, given its raw path; costs little and never waits."""
    health: Health
    pool: RenderPool
    warming_queue: WarmingQueue | None


def create_app(
    configuration: Configuration,
    purge: Purge,
    purge_all: Callable[[], object],
    watch: Callable[[], Coroutine[Any, Any, None]],
    issues: Callable[[], Sequence[str]],
) -> Application:
    """Return the application; raises `SettingsError` for a store that cannot be opened, or keys and tokens that cannot be read.

    `purge`: called after each poll for takedowns with the digests of the images that were taken down since the last one; often none.
    `purge_all`: removes every stored response. Called when a signing key was removed, because URLs that it signed may be stored.
    `watch`: run as a task while the application runs, and canceled at its end.
    `issues`: returns warnings about this process that `/health` reports.
    """
    settings = configuration.settings
    rendering = settings.rendering
    storage = open_storage(settings.storage.url, configuration.variables.texts)
    limits = Limits(
        settings.limits.max_pixels,
        settings.limits.max_whole_pixels,
        settings.limits.max_output_pixels,
        settings.limits.max_frames,
        codec_bytes(rendering.memory_bytes),
    )
    pool = _render_pool(rendering)
    unsigned = _unsigned_transforms(settings)
    access = Access(settings, storage, unsigned, purge_all)
    signer = access.signer
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
    sources = _sources(configuration, storage, documents, ingester)
    quota = DerivedQuota(storage, settings.storage.renditions_bytes) if settings.storage.renditions_bytes else None
    health = Health(settings, storage, pool, access.signing_keys, access.rotation, version=VERSION, issues=issues)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        with end_at_once():
            await _clean_up(settings, storage, spool)
        async with pool.running(), anyio.create_task_group() as tasks:
            background: list[Callable[[], Coroutine[Any, Any, None]]] = [
                watch,
                health.watch,
                health.watch_renders,
                RenderFailures(storage, pool.circuit_breaker).watch,
                takedowns.watch,
                access.signing_keys.watch,
                listing.backfill,
                CostFile(settings.storage.data / "render-costs.json", pool.costs).watch,
                upload_tickets.watch,
                access.rotation.watch,
                access.token_usage.watch,
            ]
            if quota is not None:
                background.append(quota.watch)
            if warming_queue is not None:
                warmer = Warmer(
                    warming_queue,
                    documents,
                    renditions,
                    intermediates,
                    pool,
                    limits=limits,
                    formats=rendering.warm_formats,
                    default_widths=rendering.widths,
                    quality=rendering.quality,
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
                await sources.aclose()
                access.token_usage.save()
                tasks.cancel_scope.cancel()

    url_builder = UrlBuilder(
        signer,
        settings.server.public_url,
        limits,
        rendering.widths,
        quality=rendering.quality,
        use_names=settings.server.url_names,
    )
    dependencies: dict[str, object] = {
        "auth": access.auth,
        "health": health,
        "listing": listing,
        "url_builder": url_builder,
        "documents": documents,
        "ingester": ingester,
        "sources": sources,
        "renditions": renditions,
        "rendition_serving": RenditionServing(
            documents=documents, renditions=renditions, settings=settings, signer=signer, sources=sources, url_builder=url_builder
        ),
        "settings": settings,
        "signer": signer,
        "takedowns": takedowns,
        "upload_tickets": upload_tickets,
    }

    def failure_response(request: Request[object, object, State], error: UnauthorizedError | BadSignatureError) -> Response[Problem]:
        access.add_failure(request.scope, error)
        return service_error_response(request, error)

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
            list_sources,
            list_objects,
            create_source_url,
            get_from_source,
            get_rendition,
            page_router(),
            guide_router(settings, unsigned),
        ],
        dependencies={name: Provide(_provider(value), use_cache=True, sync_to_thread=False) for name, value in dependencies.items()},
        exception_handlers={
            UnknownImageError: replay_response if settings.is_replica else service_error_response,
            ServiceError: service_error_response,
            UnauthorizedError: failure_response,
            BadSignatureError: failure_response,
            HTTPException: http_exception_response,
            Exception: unexpected_error_response,
        },
        before_send=[_allow_all_methods],
        lifespan=[lifespan],
        # Only the JSON: Litestar's plugins for pages load scripts from other hosts, so `/docs` is a page of our own.
        openapi_config=OpenAPIConfig(
            "Darkroom",
            VERSION,
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
    secured = _for_clients(_with_security_headers(app), access.clients)
    traced = _with_trace_id(secured) if settings.server.metrics_port else secured
    return Application(traced, takedowns.refresh, access, partial(_refuse_render, renditions, signer), health, pool, warming_queue)


async def _clean_up(settings: Settings, storage: Storage, spool: UploadSpool) -> None:
    """Remove what a process that was killed has left; end this one with a message if its folders cannot be used."""
    try:
        spool.clear()
        if removed := await storage.remove_orphaned_temp_files():
            log.info("removed files of interrupted writes", files=removed)
    except OSError as error:
        refuse_start(str(unusable_folder(settings.storage.data, "DARKROOM_DATA", error)))
    except ServiceError as error:
        refuse_start(f"DARKROOM_STORE={settings.storage.url}: {error.detail} {error.remedy}")


def _refuse_render(renditions: Renditions, signer: Signer, raw_path: bytes) -> ServiceError | None:
    try:
        url, signature = parse_rendition_url(raw_path)
        if url.extension == AUTO:
            return None
        try:
            renditions.raise_if_refused(url)
        except OverloadedError as refused:
            # The signature of a request that is not refused is verified only in the route.
            signer.verify(url, signature)
            return refused
    except ServiceError:
        # The route finds the same error.
        pass
    return None


def _unsigned_transforms(settings: Settings) -> UnsignedTransforms:
    words = settings.auth.unsigned
    return unsigned_transforms(
        [word for word in words if word != OPEN_LADDER],
        open_ladder=OPEN_LADDER in words,
        widths=settings.rendering.widths,
        variants=tuple(settings.rendering.variants.values()),
        quality=settings.rendering.quality,
    )


def _render_pool(rendering: RenderingSettings) -> RenderPool:
    return RenderPool(
        slots=rendering.processes,
        queue_limit=rendering.queue_limit,
        memory_bytes=rendering.memory_bytes,
        render_seconds=rendering.render_seconds,
        wait_seconds=rendering.wait_seconds,
    )


def _sources(configuration: Configuration, storage: Storage, documents: Documents, ingester: Ingester) -> Sources:
    settings = configuration.settings
    locations = settings.sources.locations
    max_bytes, use_machine_role = settings.limits.max_upload_bytes, settings.sources.machine_role
    opened = open_sources(locations, configuration.variables.texts, max_bytes=max_bytes, use_machine_role=use_machine_role)
    # A slow source must leave room among the cold requests of the edge for everything else.
    max_pending = max(1, settings.server.max_cold_requests * 3 // 4)
    fresh_seconds = settings.sources.fresh_seconds
    return Sources(opened, locations, storage, documents, ingester, fresh_seconds=fresh_seconds, max_pending=max_pending)


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


async def _allow_all_methods(message: Message, scope: Scope) -> None:
    """State every method of the path in a response to OPTIONS: Litestar states those of the handler that was registered first."""
    if message["type"] == "http.response.start" and message["status"] == 204 and scope.get("method") == "OPTIONS":
        routes = scope["litestar_app"].route_handler_method_map
        methods = [str(method) for path in scope["route_handler"].paths for method in routes[path]]
        others = (pair for pair in message["headers"] if pair[0] != b"allow")
        message["headers"] = [*others, (b"allow", allowed_methods(methods).encode("ascii"))]


def _for_clients(app: ASGIApp, clients: ClientAddresses) -> ASGIApp:
    """Set the `current_client` of each request, by which renders take turns, and record the service's part of its trace."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        with working_for(clients.find(scope)), stage("service"):
            await app(scope, receive, send)

    return middleware


def _with_trace_id(app: ASGIApp) -> ASGIApp:
    """Let the metrics of each request have the id of its trace."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        with instruments.tracing_request(scope.get("headers", ())):
            await app(scope, receive, send)

    return middleware


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
