"""What Granian serves: Edge around create_app()."""

from __future__ import annotations

import os
import signal
from typing import cast

from edge import Edge
from edge.answer import ASGIApp
from service.app import create_app
from service.parent_death import end_with_parent
from service.settings import load
from service.telemetry import configure_logs

# What is asked of this process itself, and what changes something: neither kept nor refused.
PASS_PATHS = ("/health", "/livez", "/v1/")


def build() -> Edge:
    """Return the whole server, set up from the environment; raises `SettingsError`."""
    # A killed supervisor must not leave a server behind that nobody watches.
    end_with_parent(signal.SIGTERM)
    configure_logs()
    settings = load(os.environ)
    return Edge(
        cast(ASGIApp, create_app(settings)),
        name="darkroom",
        max_bytes=settings.cache_bytes,
        max_cold_requests=settings.cold_requests,
        pass_paths=PASS_PATHS,
    )
