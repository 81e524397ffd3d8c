"""`/health`, whether this process should get requests, and `/livez`, whether it answers at all."""

from __future__ import annotations

from litestar import Response, get

from service.ops.health import Health, Report


@get("/health", summary="Whether this process should get requests", tags=["health"])
async def health(health: Health) -> Response[Report]:
    """Return 200 while this process should be in rotation, else 503 with the reason."""
    status_code, report = health.report()
    return Response(report, status_code=status_code, headers={"Cache-Control": "no-store"})


@get("/livez", summary="Whether this process answers", media_type="text/plain", tags=["health"])
async def livez() -> Response[str]:
    """Return 200 as long as the process answers."""
    return Response("alive\n", headers={"Cache-Control": "no-store"})
