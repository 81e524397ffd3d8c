"""The ASGI application that Granian serves.

A request comes in turn to:

1. the guard (`service.http.guard`), which rejects a header that is too large or has no valid Host, and the check of clients that have sent
   many wrong tokens or signatures (`service.http.failures`);
2. the edge (`edge`), which has stored responses, lets clients share the response that they wait for, and gives each of them
   (`service.http.clients`) a fair part of the places;
3. the service (`service.http.app`), which makes the response.

`service.http.request_log` logs all of them that are not plain hits.
With `DARKROOM_CORS_ORIGINS`, `service.http.cors` surrounds them all, so that a page of another origin can read each of their errors.

`Connections` limits the connections that requests come from.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from anyio import CancelScope

from edge import Edge
from edge.asgi import ASGIApp, Response, Scope
from edge.fly import FlyRegion
from service.concurrency.current_client import working_for
from service.errors import BadSignatureError, ServiceError, SettingsError, UnauthorizedError
from service.http.app import Application, create_app
from service.http.connections import Connections, max_connections
from service.http.cors import UploadCors
from service.http.guard import Guard
from service.http.negotiation import normalize_accept
from service.http.problem_details import plain_response
from service.http.request_log import RequestLog
from service.imports import quick_imports
from service.ops.logging import configure_logs, hide, omitted_lines, report_omitted_lines, secret_values
from service.ops.tracing import open_tracing
from service.process import end_with_parent, hold_signals, refuse_start
from service.settings.environment import Configuration, read
from service.settings.sections import Settings
from service.version import VERSION

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from service.ops.open_telemetry import Tracing

# Requests about this process itself, and requests that change something: never stored, and never rejected when many clients wait.
BYPASS_PATHS = ("/health", "/livez", "/v1/")

_METRIC_LABELS = {"/i/": "rendition", "/from/": "source", "/v1/": "api", "/health": "health", "/livez": "health"}


def build() -> ASGIApp:
    """Return the whole server, configured by the environment; end the process with a message if a setting is invalid."""
    hold_signals()
    try:
        with quick_imports():
            return _wire(read(os.environ))
    except SettingsError as error:
        refuse_start(str(error))


def _wire(configuration: Configuration) -> ASGIApp:
    """Return the edge around the service; raises `SettingsError` for a setting that is invalid."""
    settings = configuration.settings
    configure_logs(lines_per_second=settings.log.lines_per_second)
    hide(secret_values(configuration.variables.texts))

    def purge(digests: Collection[str]) -> None:
        """Remove the images with these digests from the edge."""
        edge.purge_tags(digests)

    def purge_all() -> None:
        """Remove every response from the edge."""
        edge.purge_all()

    server = settings.server
    connections = Connections(server.port, max_connections=max_connections(), max_per_address=server.max_connections_per_address)

    fly = settings.fly
    tracing, tracing_issue = open_tracing(configuration.variables.texts, version=VERSION, region=fly.region, machine=fly.machine_id)

    def issues() -> list[str]:
        """Return what an operator should know and no request suffers from."""
        issue = tracing_issue if tracing is None else tracing.issue
        return [] if issue is None else [issue]

    registry = _registry() if server.metrics_port else None
    application = create_app(configuration, purge, purge_all, partial(_watch, connections, tracing), issues)

    # A replica region replays changes elsewhere, so no route checks their token before the body is read. The guard does.
    guard = Guard(server.max_header_bytes, application.access.authenticate if settings.is_replica else None)

    def check_request(scope: Scope) -> Response | None:
        """Return the response that rejects a request, None if it may continue."""
        try:
            guard.check(scope)
            application.access.refuse_failures(scope)
        except ServiceError as error:
            if isinstance(error, UnauthorizedError | BadSignatureError):
                application.access.add_failure(scope, error)
            return Response(*plain_response(error))
        return None

    def refuse_miss(scope: Scope) -> Response | None:
        """Return the response to a request that would only be refused after it has cost more, None for any other."""
        raw_path: bytes = scope["raw_path"]
        if not raw_path.startswith(b"/i/"):
            return None
        # The queue is longer for a client that has much in it.
        with working_for(application.access.clients.find(scope)):
            error = application.refuse_render(raw_path)
        return None if error is None else Response(*plain_response(error, close=False))

    edge = Edge(
        cast(ASGIApp, application.app),
        name="darkroom",
        max_bytes=server.cache_bytes,
        max_concurrent_misses=server.max_cold_requests,
        # More could not be rendered.
        shared_misses=settings.rendering.queue_limit,
        client_key=application.access.clients.find,
        bypass_paths=BYPASS_PATHS,
        # No response depends on Host. As part of the key, it would let clients multiply entries.
        key_includes_host=False,
        vary_normalizers={b"accept": normalize_accept},
        metric_label=metric_label,
        # Any client can get every page and file stored. They must not evict renditions.
        max_fraction_by_label={"page": 1 / 16},
        # No stored response depends on the query, which clients choose freely.
        store_responses_to_queries=False,
        region=FlyRegion(region=settings.fly.region, machine=settings.fly.machine_id, primary=settings.originals_region),
        check_request=check_request,
        refuse_miss=refuse_miss,
        sync_purges=application.refresh_takedowns,
        max_message_bytes=connections.piece_bytes,
        observe=_observed(application, settings),
        observed_hits=settings.log.hits,
        measure_hits=registry is not None,
    )
    if registry is not None:
        _serve_metrics(registry, edge, application, settings, tracing)
    return _around(edge, settings, tracing)


async def _watch(connections: Connections, tracing: Tracing | None) -> None:
    """Guard the process while it serves."""
    # From here on SIGTERM finishes the requests in progress.
    end_with_parent(signal.SIGTERM)
    # The oldest generation is only searched once it has grown by a quarter. Without the many objects of the start, that is soon, and the
    # frames of failed requests, which refer to each other, do not pile up.
    gc.freeze()
    connections.start()
    try:
        await report_omitted_lines()
    finally:
        if tracing is not None:
            with CancelScope(shield=True):
                await tracing.aclose()


def _observed(application: Application, settings: Settings) -> Callable[[ASGIApp], ASGIApp]:
    """Return what adds a log of its requests to an application."""
    clients = application.access.clients if settings.log.clients else None

    def observe(app: ASGIApp) -> ASGIApp:
        return cast(ASGIApp, RequestLog(cast(Any, app), label=metric_label, clients=clients, health_fraction=settings.log.hits))

    return observe


def _around(edge: Edge, settings: Settings, tracing: Tracing | None) -> ASGIApp:
    """Return the edge within those of the layers around it that are configured."""
    # The bound method: a call of it is shorter than a call of the object, which Python passes on to it.
    whole: Any = UploadCors(cast(Any, edge), settings.server.cors_origins) if settings.server.cors_origins else edge.__call__
    if tracing is not None:
        # Imported only where traces are on.
        from service.http.request_trace import RequestTrace  # noqa: PLC0415

        whole = RequestTrace(whole, tracing, metric_label)
    return cast(ASGIApp, whole)


def _registry() -> CollectorRegistry:
    """Return the registry in which all parts of the service record what they do."""
    # Imported only if it is enabled, because the start should be fast.
    from service.ops import metrics  # noqa: PLC0415

    return metrics.create_registry()


def _serve_metrics(registry: CollectorRegistry, edge: Edge, application: Application, settings: Settings, tracing: Tracing | None) -> None:
    """Serve the metrics on their port, including the ones that are read from other parts of the server at each scrape."""
    from service.ops import metrics  # noqa: PLC0415

    access = application.access
    collectors = [
        metrics.InfoCollector(application.health, settings),
        metrics.EdgeCollector(edge),
        metrics.RenderCollector(application.pool, application.warming_queue),
        metrics.AccessCollector(access.token_usage, access.key_last_used, access.failures),
        metrics.TelemetryCollector(omitted_lines, tracing),
    ]
    metrics.serve(registry, collectors, settings.server.host, settings.server.metrics_port)


def metric_label(path: str) -> str:
    """Return the kind of response that a path has, under which its requests are counted."""
    return next((label for start, label in _METRIC_LABELS.items() if path.startswith(start)), "page")
