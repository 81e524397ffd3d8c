"""Signatures in texts for logs and traces are masked: whoever has the signature of a URL can use the URL."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"

_DIGEST_CHARACTERS = 32

# A signature has 26 characters of base32. A run of fewer characters lacks at least 30 of its 128 bits, which nobody can guess online. A
# digest, which is no secret, has 32. Capitals are a misspelling of a signature that shows it all the same.
_RUN = re.compile(r"[A-Za-z2-7]{20,}")
_WORD = re.compile(rf"(?<![A-Za-z0-9]){_RUN.pattern}(?![A-Za-z0-9])")

# The end of the path of an upload ticket: its ID and its signature.
_TICKET = re.compile(r"(/v1/uploads/[^/.]*\.[^/.]*\.[^/.]*\.[^/.]*)\..*", re.DOTALL)

# A query, decoded, in the path of a source's object: some sites sign their URLs in it.
_QUERY = re.compile(r"\?.*?(?=(?:/[^/]*/[^/]*)?$)", re.DOTALL)

# A path that is percent-encoded more often is shown with its encodings.
_MAX_ENCODINGS = 4


def mask_signatures(text: str) -> str:
    """Return any text with `***` in place of words that may be signatures."""
    return _WORD.sub(_mask, text)


def mask_path(path: str) -> str:
    """Return the path of a request, decoded, with `***` in place of its signature, also of one that is incomplete or misspelled."""
    for _ in range(_MAX_ENCODINGS):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    segments = path.split("/")
    if path.startswith("/i/") and len(segments) > 5:
        signature, dot, extension = segments[5].partition(".")
        if signature != "-":
            segments[5] = f"{MASK}{dot}{extension}"
        path = "/".join(segments)
    elif path.startswith("/from/"):
        path = _QUERY.sub(f"?{MASK}", path)
    else:
        path = _TICKET.sub(rf"\1.{MASK}", path)
    return _RUN.sub(_mask, path)


def _mask(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) == _DIGEST_CHARACTERS else MASK
