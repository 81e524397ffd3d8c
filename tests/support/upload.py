"""Uploads in tests."""

from __future__ import annotations

from typing import Any

import httpx


def upload(client: httpx.Client, body: bytes) -> dict[str, Any]:
    """Upload an image and return its document; raises `httpx.HTTPStatusError` if the server refuses it."""
    document: dict[str, Any] = client.post("/v1/images", content=body).raise_for_status().json()
    return document
