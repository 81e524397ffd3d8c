"""A small CDN node inside the process: a pure ASGI layer that keeps answers in memory and serves them as a CDN would."""

from edge.app import Edge

__all__ = ["Edge"]
