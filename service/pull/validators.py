"""What tells one version of a remote source from the next."""

from __future__ import annotations

import msgspec


class Validators(msgspec.Struct, frozen=True):
    """The `ETag` and `Last-Modified` that came with a version, "" where there was none (RFC 9110 §8.8)."""

    etag: str = ""
    last_modified: str = ""
