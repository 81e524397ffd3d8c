"""What Granian serves: Edge around create_app()."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from typing import cast

from edge import Edge
from edge.asgi import ASGIApp, Response, Scope
from edge.fly import FlyRegion
from service.errors import ServiceError
from service.http.app import create_app
from service.http.connections import Connections, max_connections
from service.http.guard import Guard
from service.http.problem_details import plain_response
from service.http.routes.renditions import normalised_accept
from service.ops.logging import configure_logs
from service.process import end_with_parent, end_with_supervisor, hold_signals
from service.settings.environment import load

# What is asked of this process itself, and what changes something: neither kept nor refused.
BYPASS_PATHS = ("/health", "/livez", "/v1/")

_KINDS = {"/i/": "rendition", "/pull/": "pointer", "/v1/": "api", "/health": "health", "/livez": "health"}


def build() -> Edge:
    """Return the whole server, set up from the environment; raises `SettingsError`."""
    # A killed supervisor must not leave a server behind that nobody watches. Until the application has started there is nothing to finish.
    end_with_supervisor(signal.SIGKILL)
    hold_signals()
    configure_logs()
    settings = load(os.environ)

    def purge(digests: Collection[str]) -> None:
        """Tell the edge what the service has to say beside its answers."""
        edge.purge_tags(digests)

    server = settings.server
    connections = Connections(server.port, max_connections=max_connections(), max_per_address=server.max_connections_per_address)

    async def watch() -> None:
        """Guard the process while it serves."""
        # From here on SIGTERM finishes the requests in progress.
        end_with_parent(signal.SIGTERM)
        connections.start()

    origin = create_app(settings, purge, watch)

    # Where changes are only handed on, no route asks for a token before the body is read.
    guard = Guard(server.max_header_bytes, origin.access.scopes if settings.is_replica else None)

    def check(scope: Scope) -> Response | None:
        """Return the response that refuses a request, None for one that may go on."""
        try:
            guard.check(scope)
        except ServiceError as error:
            return Response(*plain_response(error))
        return None

    edge = Edge(
        cast(ASGIApp, origin.app),
        name="darkroom",
        max_bytes=server.cache_bytes,
        max_concurrent_misses=server.max_cold_requests,
        bypass_paths=BYPASS_PATHS,
        # No answer depends on Host, and whoever could choose it could multiply entries.
        key_includes_host=False,
        vary_normalizers={b"accept": normalised_accept},
        metric_label=kind,
        # Anybody can have every page and file stored. That must not cost renditions their place.
        max_fraction_by_label={"page": 1 / 16},
        # What is stored does not depend on a query, and whoever sends one chooses it.
        store_responses_to_queries=False,
        region=FlyRegion(region=settings.fly.region, machine=settings.fly.machine_id, primary=settings.originals_region),
        check_request=check,
        sync_purges=origin.look_for_takedowns,
        max_message_bytes=connections.piece_bytes,
    )
    if server.metrics_port:
        # Imported by those alone who ask for it: a start should be short.
        from service.ops import metrics  # noqa: PLC0415

        metrics.serve(edge, server.host, server.metrics_port)
    return edge


def kind(path: str) -> str:
    """Return what kind of answer a path has, under which it is counted."""
    return next((name for start, name in _KINDS.items() if path.startswith(start)), "page")
