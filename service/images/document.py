"""Document: the facts of an image, as they are stored."""

from __future__ import annotations

import msgspec

from service.images.info import ImageInfo, Placeholder
from service.images.options import FocalPoint


class Document(msgspec.Struct, frozen=True):
    """The facts of an image, as they are stored; URLs are minted on reading. `bytes` and sizes are the original's, upright."""

    digest: str
    info: ImageInfo
    bytes: int
    created: str
    placeholder: Placeholder
    alt: str = ""
    focal: FocalPoint | None = None


def opened_document(digest: str, body: bytes) -> Document | None:
    """Return the document that is stored of an image, `None` if what is stored is damaged."""
    try:
        document = msgspec.json.decode(body, type=Document)
    except msgspec.DecodeError:
        return None
    return document if document.digest == digest else None
