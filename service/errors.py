"""Every failure, with its public face; `problems.py` makes answers of them. Imported by render processes too: no framework here."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document. `expected`, `received` and `remedy` extend RFC 9457 §3.2: what was wanted, what came, what to do."""

    type: str
    title: str
    status: int
    detail: str
    expected: str | None = None
    received: str | None = None
    remedy: str | None = None


class ServiceError(Exception):
    """A failure with a public face. Nothing private goes into its words: paths, secrets and causes belong in the log."""

    status_code: ClassVar[int] = 500
    kind: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        expected: str | None = None,
        received: str | None = None,
        remedy: str | None = None,
        retry_after_seconds: int | None = None,
        extra_headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.expected = expected
        self.received = None if received is None else printable(received)
        self.remedy = remedy
        self.retry_after_seconds = retry_after_seconds
        self.extra_headers = extra_headers

    def problem(self) -> Problem:
        """Return the problem document of this failure."""
        return Problem(
            type=f"urn:darkroom:problem:{self.kind}",
            title=self.title,
            status=self.status_code,
            detail=self.detail,
            expected=self.expected,
            received=self.received,
            remedy=self.remedy,
        )


class BadRequestError(ServiceError):
    """The request cannot be understood."""

    status_code = 400
    kind = "bad-request"
    title = "Bad request"


class EmptyBodyError(BadRequestError):
    """An upload without a byte."""

    kind = "empty-body"
    title = "Empty body"


class BadTransformError(BadRequestError):
    """A transform with an unknown key, a value out of range, options that contradict each other, or another spelling."""

    kind = "bad-transform"
    title = "Bad transform"


class FormatNotOfferedError(BadRequestError):
    """A rendition in a format that the running libvips cannot write."""

    kind = "format-not-offered"
    title = "Format not offered"


class BadAddressError(BadRequestError):
    """A path that is not the address of a rendition."""

    kind = "bad-address"
    title = "Bad address"


class UnauthorizedError(ServiceError):
    """A token is needed and none that is known came."""

    status_code = 401
    kind = "unauthorized"
    title = "Unauthorized"


class ForbiddenError(ServiceError):
    """The token does not carry the scope that this needs."""

    status_code = 403
    kind = "forbidden"
    title = "Forbidden"


class BadSignatureError(ServiceError):
    """An address that none of the configured keys has signed."""

    status_code = 403
    kind = "bad-signature"
    title = "Bad signature"


class SourceRefusedError(ServiceError):
    """A URL that is not fetched: another host than those allowed, or an address that is not public."""

    status_code = 403
    kind = "source-refused"
    title = "Source refused"


class NotFoundError(ServiceError):
    """Nothing is here under that name."""

    status_code = 404
    kind = "not-found"
    title = "Not found"


class SlowUploadError(ServiceError):
    """An upload that drips."""

    status_code = 408
    kind = "slow-upload"
    title = "Upload too slow"


class GoneError(ServiceError):
    """An image that has been taken down."""

    status_code = 410
    kind = "gone"
    title = "Taken down"


class PreconditionFailedError(ServiceError):
    """What was to be changed is no longer what the client has seen (RFC 9110 §15.5.13)."""

    status_code = 412
    kind = "precondition-failed"
    title = "Precondition failed"


class PreconditionRequiredError(ServiceError):
    """A change that does not say of what (RFC 6585 §3)."""

    status_code = 428
    kind = "precondition-required"
    title = "Precondition required"


class TooLargeError(ServiceError):
    """An upload of more bytes than are taken."""

    status_code = 413
    kind = "too-large"
    title = "Upload too large"


class UnsupportedFormatError(ServiceError):
    """Bytes that are no image, or an image in a format that is not offered."""

    status_code = 415
    kind = "unsupported-format"
    title = "Not a supported image"


class BrokenImageError(ServiceError):
    """An image that cannot be decoded to its end."""

    status_code = 422
    kind = "broken-image"
    title = "Broken image"


class TooManyPixelsError(ServiceError):
    """An image, or a rendition, of more pixels than are taken."""

    status_code = 422
    kind = "too-many-pixels"
    title = "Too many pixels"


class CannotFitError(ServiceError):
    """A rendition that no quality makes as small as it must be."""

    status_code = 422
    kind = "cannot-fit"
    title = "Does not fit"


class DamagedOriginalError(ServiceError):
    """A stored original whose bytes are no longer those of its digest."""

    status_code = 500
    kind = "damaged-original"
    title = "Damaged original"


class DamagedDocumentError(ServiceError):
    """A stored document that cannot be read, or is another image's."""

    status_code = 500
    kind = "damaged-document"
    title = "Damaged document"


class RenderFailedError(ServiceError):
    """A render process ended in the middle of its work."""

    status_code = 500
    kind = "render-failed"
    title = "Render failed"


class CdnError(ServiceError):
    """The CDN in front was not reached, or refused to purge."""

    status_code = 502
    kind = "cdn-failed"
    title = "CDN not purged"


class SourceFailedError(ServiceError):
    """A remote source that has no image, or that cannot be asked. `source_status` is what it answered, if it did."""

    status_code = 502
    kind = "source-failed"
    title = "Source failed"

    def __init__(
        self,
        detail: str,
        *,
        expected: str | None = None,
        received: str | None = None,
        remedy: str | None = None,
        retry_after_seconds: int | None = None,
        source_status: int | None = None,
    ) -> None:
        super().__init__(detail, expected=expected, received=received, remedy=remedy, retry_after_seconds=retry_after_seconds)
        self.source_status = source_status


class OverloadedError(ServiceError):
    """More work is waiting than can be done in time."""

    status_code = 503
    kind = "overloaded"
    title = "Too busy"


class DeadlineExceededError(ServiceError):
    """A render took longer than a client is kept waiting."""

    status_code = 503
    kind = "deadline-exceeded"
    title = "Took too long"


class TooCostlyError(ServiceError):
    """A render needs more memory than a render process may have."""

    status_code = 503
    kind = "too-costly"
    title = "Too costly"


class NewerVersionError(ServiceError):
    """An address of a pipeline version that this process does not know yet."""

    status_code = 503
    kind = "newer-version"
    title = "Newer version"


class StorageUnavailableError(ServiceError):
    """The store cannot be reached, or refuses."""

    status_code = 503
    kind = "storage-unavailable"
    title = "Storage unavailable"


class SourceSlowError(ServiceError):
    """A remote source that does not answer in time."""

    status_code = 504
    kind = "source-slow"
    title = "Source too slow"


class StorageFullError(ServiceError):
    """The store has no room."""

    status_code = 507
    kind = "storage-full"
    title = "Storage full"


def printable(text: str, limit: int = 120) -> str:
    """Return `text` short enough and without control or non-ASCII characters, so that it may be echoed and logged."""
    escaped = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return escaped if len(escaped) <= limit else escaped[:limit] + "…"
