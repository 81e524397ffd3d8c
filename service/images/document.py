"""Document: the facts of an image, as they are stored."""

from __future__ import annotations

import msgspec

from service.images.info import ImageInfo, Placeholder
from service.images.options import FocalPoint


class OriginalFacts(msgspec.Struct, frozen=True):
    """The facts of an original, which never change: its digest, its header, and its size in bytes."""

    digest: str
    info: ImageInfo
    bytes: int


class Document(msgspec.Struct, frozen=True):
    """The stored facts of an image; its URLs are built when it is read.

    digest: of the original. info: its header. bytes: its size. created: the time of the upload, RFC 3339.
    alt: the alternative text. focal: the focal point, if one is set.
    warnings: sentences that report what was removed from a drawing for safety, or is drawn differently. Older documents have none.
    name: the image's name in URLs, empty if it has none, as in older documents.
    """

    digest: str
    info: ImageInfo
    bytes: int
    created: str
    placeholder: Placeholder
    alt: str = ""
    focal: FocalPoint | None = None
    warnings: tuple[str, ...] = ()
    name: str = ""

    @property
    def facts(self) -> OriginalFacts:
        """The facts that never change."""
        return OriginalFacts(self.digest, self.info, self.bytes)


def opened_document(digest: str, body: bytes) -> Document | None:
    """Return the document of an image from its stored bytes, `None` if they are damaged."""
    try:
        document = msgspec.json.decode(body, type=Document)
    except msgspec.DecodeError:
        return None
    return document if document.digest == digest else None
