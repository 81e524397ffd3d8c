"""What Granian serves: Edge around create_app()."""

from __future__ import annotations

import os
from typing import cast

from edge import Edge
from edge.answer import ASGIApp
from service.app import create_app
from service.settings import load
from service.telemetry import configure_logs

# What is asked of this process itself, and what changes something: neither kept nor refused.
PASS_PATHS = ("/health", "/livez", "/v1/")


def build() -> Edge:
    """Return the whole server, set up from the environment; raises `SettingsError`."""
    configure_logs()
    settings = load(os.environ)
    return Edge(
        cast(ASGIApp, create_app(settings)),
        name="darkroom",
        max_bytes=settings.cache_bytes,
        max_cold_requests=settings.cold_requests,
        pass_paths=PASS_PATHS,
    )
