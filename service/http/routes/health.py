"""`/health`: whether this process should receive requests; `/livez`: whether it responds at all."""

from __future__ import annotations

from litestar import Response, get

from service.ops.health import Health, Report


@get("/health", summary="Whether this process should receive requests", tags=["health"])
async def get_health(health: Health) -> Response[Report]:
    """Return 200 while this process should receive requests, else 503 with the reason."""
    status_code, report = health.report()
    return Response(report, status_code=status_code, headers={"Cache-Control": "no-store"})


@get("/livez", summary="Whether this process responds", media_type="text/plain", tags=["health"])
async def get_livez() -> Response[str]:
    """Return 200 as long as the process responds."""
    return Response("alive\n", headers={"Cache-Control": "no-store"})
