"""The ASGI application that Granian serves.

A request comes in turn to:

1. the guard (`service.http.guard`), which rejects a header that is too large or has no valid Host;
2. the edge (`edge`), which has stored responses, and lets clients share the response that they wait for;
3. the service (`service.http.app`), which makes the response.

With `DARKROOM_CORS_ORIGINS`, `service.http.cors` surrounds them all, so that a page of another origin can read each of their errors.

`Connections` limits the connections that requests come from.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from typing import Any, cast

from edge import Edge
from edge.asgi import ASGIApp, Response, Scope
from edge.fly import FlyRegion
from service.errors import ServiceError
from service.http.app import create_app
from service.http.connections import Connections, max_connections
from service.http.cors import UploadCors
from service.http.guard import Guard
from service.http.negotiation import normalize_accept
from service.http.problem_details import plain_response
from service.ops.logging import configure_logs
from service.process import end_with_parent, end_with_supervisor, hold_signals
from service.settings.environment import load

# Requests about this process itself, and requests that change something: never stored, and never rejected when many clients wait.
BYPASS_PATHS = ("/health", "/livez", "/v1/")

_METRIC_LABELS = {"/i/": "rendition", "/pull/": "pointer", "/v1/": "api", "/health": "health", "/livez": "health"}


def build() -> ASGIApp:
    """Return the whole server, configured by the environment.

    Raises:
        SettingsError: A setting is invalid.
    """
    # A killed supervisor must not leave a server behind that nobody watches. Until the application has started there is nothing to finish.
    end_with_supervisor(signal.SIGKILL)
    hold_signals()
    configure_logs()
    settings = load(os.environ)

    def purge(digests: Collection[str]) -> None:
        """Remove the images with these digests from the edge."""
        edge.purge_tags(digests)

    server = settings.server
    connections = Connections(server.port, max_connections=max_connections(), max_per_address=server.max_connections_per_address)

    async def watch() -> None:
        """Guard the process while it serves."""
        # From here on SIGTERM finishes the requests in progress.
        end_with_parent(signal.SIGTERM)
        connections.start()

    application = create_app(settings, purge, watch)

    # A replica region replays changes elsewhere, so no route checks their token before the body is read. The guard does.
    guard = Guard(server.max_header_bytes, application.authenticate if settings.is_replica else None)

    def check_request(scope: Scope) -> Response | None:
        """Return the response that rejects a request, None if it may continue."""
        try:
            guard.check(scope)
        except ServiceError as error:
            return Response(*plain_response(error))
        return None

    edge = Edge(
        cast(ASGIApp, application.app),
        name="darkroom",
        max_bytes=server.cache_bytes,
        max_concurrent_misses=server.max_cold_requests,
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
        sync_purges=application.refresh_takedowns,
        max_message_bytes=connections.piece_bytes,
    )
    if server.metrics_port:
        # Imported only if it is enabled, because the start should be fast.
        from service.ops import metrics  # noqa: PLC0415

        metrics.serve(edge, server.host, server.metrics_port)
    if not server.cors_origins:
        return edge
    return cast(ASGIApp, UploadCors(cast(Any, edge), server.cors_origins))


def metric_label(path: str) -> str:
    """Return the kind of response that a path has, under which its requests are counted."""
    return next((label for start, label in _METRIC_LABELS.items() if path.startswith(start)), "page")
