"""Every error that can become a problem document (RFC 9457). Render processes import it too, so it imports no framework."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document. Its extension members (RFC 9457 §3.2) say what was expected, what was received, and what to do."""

    type: str
    title: str
    status: int
    detail: str
    expected: str | None = None
    received: str | None = None
    remedy: str | None = None


class SettingsError(Exception):
    """A setting, or a file that a command reads, cannot be used. The message says what was expected, what came, and what to do."""

    def __init__(
        self,
        message: str,
        *,
        detail: str | None = None,
        expected: str | None = None,
        received: str | None = None,
        remedy: str | None = None,
    ) -> None:
        """Create an error with a message for one line.

        detail: what went wrong, without the rest; the message by default. expected, received, remedy: the rest, where they are known.
        """
        super().__init__(message)
        self.detail = message if detail is None else detail
        self.expected = expected
        self.received = received
        self.remedy = remedy

    @classmethod
    def invalid(cls, setting: str, expected: str, received: str, remedy: str = "") -> SettingsError:
        """Return the error for a value out of range. `expected` and `received` are phrases, `remedy` is a sentence or empty."""
        message = f"{setting} is invalid: expected {expected}, got {received}. {remedy}".rstrip()
        return cls(message, detail=f"{setting} is invalid.", expected=expected, received=received, remedy=remedy or None)

    def located(self, where: str) -> SettingsError:
        """Return this error with the place of the setting, such as a file, before its message."""
        return SettingsError(
            f"{where}: {self}", detail=f"{where}: {self.detail}", expected=self.expected, received=self.received, remedy=self.remedy
        )


class ServiceError(Exception):
    """An error that clients see. Its texts contain nothing private: paths, secrets and causes belong in the log.

    The class has what is common to all errors of a kind: `slug` ends the URI of the problem's type, and `help` says in general what to
    do. The page at that URI shows both.
    """

    status_code: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    help: ClassVar[str] = "Try again. If the error persists, read the server's log for its cause, and report it: it is a bug in Darkroom."

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
        """Create an error for one request.

        `detail`: what went wrong, in one sentence.
        `expected`, `received`: phrases. `received` may be any text from a request: it is sanitized.
        `remedy`: what to do about this request, in one sentence.
        `retry_after_seconds`: when another attempt may succeed, for Retry-After.
        `extra_headers`: more header fields of the response, names and values.
        """
        super().__init__(detail)
        self.detail = detail
        self.expected = expected
        self.received = None if received is None else sanitize(received)
        self.remedy = remedy
        self.retry_after_seconds = retry_after_seconds
        self.extra_headers = extra_headers

    @classmethod
    def type_uri(cls) -> str:
        """Return the `type` of the problem (RFC 9457 §3.1.1): the path of a page that explains it."""
        return f"/problems/{cls.slug}"

    def problem(self) -> Problem:
        """Return the problem document of this error."""
        return Problem(
            type=self.type_uri(),
            title=self.title,
            status=self.status_code,
            detail=self.detail,
            expected=self.expected,
            received=self.received,
            remedy=self.remedy,
        )


class BadRequestError(ServiceError):
    """The request is malformed."""

    status_code = 400
    slug = "bad-request"
    title = "Bad request"
    help = "Compare the request with `expected` and `received` in the response. `/docs` describes every request with examples."


class EmptyBodyError(BadRequestError):
    """An upload without a body."""

    slug = "empty-body"
    title = "Empty body"
    help = (
        "Send an image as the request body. The body is empty if, for example, the file was deleted, or if no part of "
        "the form is called `file`."
    )


class BadTransformError(BadRequestError):
    """A transform with an unknown key, a value out of range, contradictory options, or not in canonical form."""

    slug = "bad-transform"
    title = "Bad transform"
    help = (
        "Change or remove the option that `detail` names. `/docs` lists every option with its range; the playground has a control for each."
    )


class FormatNotOfferedError(BadRequestError):
    """A format that the installed libvips cannot write."""

    slug = "format-not-offered"
    title = "Format not offered"
    help = (
        "Request another format, or run the server with a libvips that writes this one. `picture` in an image document "
        "contains only formats that the server supports."
    )


class BadAddressError(BadRequestError):
    """A path that is not the URL of a rendition."""

    slug = "bad-address"
    title = "Bad address"
    help = "Use URLs exactly as the server returned them. POST /v1/images/{digest}/urls returns them."


class UnauthorizedError(ServiceError):
    """The request needs a token, and has none that the server knows."""

    status_code = 401
    slug = "unauthorized"
    title = "Unauthorized"
    help = "Send `Authorization: Bearer <token>` with a token that the server knows. Never put a token into a URL."


class ForbiddenError(ServiceError):
    """The token does not have the required scope, or is bound to sources."""

    status_code = 403
    slug = "forbidden"
    title = "Forbidden"
    help = (
        "Use a token with the scope in `expected`, or add this scope to the token: `token:ingest+read` in DARKROOM_TOKENS, "
        "`scopes=ingest+read` in a file of tokens. A token with `sources=` works for these sources only."
    )


class BadSignatureError(ServiceError):
    """A URL that none of the server's keys has signed."""

    status_code = 403
    slug = "bad-signature"
    title = "Bad signature"
    help = (
        "Use URLs exactly as the server returned them: another transform needs another signature. When you replace a "
        "signing key, leave the old one in the list of keys, after the new one."
    )


class SourceRefusedError(ServiceError):
    """The URL of an image that is below no source."""

    status_code = 403
    slug = "source-refused"
    title = "Source refused"
    help = "Add the host to DARKROOM_SOURCES if images may be fetched from it, or upload the image itself."


class SourceNotListableError(BadRequestError):
    """A source whose objects cannot be listed."""

    slug = "source-not-listable"
    title = "Source not listable"
    help = "A bucket has a listing, a host does not. Write the URLs of the images into a file, and pass that to `darkroom import`."


class NotFoundError(ServiceError):
    """There is nothing at this URL."""

    status_code = 404
    slug = "not-found"
    title = "Not found"
    help = "Check the digest or the path. An image exists as soon as its upload has received 200 or 201."


class UnknownImageError(NotFoundError):
    """No image in this server's store has the digest. If regions do not share a store, the primary region may have the image."""

    @classmethod
    def for_digest(cls, digest: str, *, option: str | None = None) -> UnknownImageError:
        """Return the error for a digest that no stored image has; `option` names the transform option that contains it, if one does."""
        return cls(
            "No image has this digest." if option is None else f"No image has the digest in `{option}`.",
            expected="the digest of an image that was uploaded and not taken down",
            received=digest,
            remedy="Check the digest. If it is right, upload the image with POST /v1/images.",
        )


class SlowUploadError(ServiceError):
    """An upload that is too slow."""

    status_code = 408
    slug = "slow-upload"
    title = "Upload too slow"
    help = "Send the upload again over a faster connection. Nothing of the incomplete upload was stored."


class UploadUsedError(ServiceError):
    """An upload URL that has taken its one upload: the request conflicts with the state of the URL (RFC 9110 §15.5.10)."""

    status_code = 409
    slug = "upload-used"
    title = "Upload URL used"
    help = (
        "Request an upload URL with POST /v1/uploads for each file. An upload that failed does not use up its URL; one that succeeded does."
    )


class UploadExpiredError(ServiceError):
    """An upload URL whose time is over: it existed, and will not come back (RFC 9110 §15.5.11)."""

    status_code = 410
    slug = "upload-expired"
    title = "Upload URL expired"
    help = (
        "Request a new upload URL with POST /v1/uploads when somebody is about to upload, with `seconds` that are enough for a slow "
        "connection: the upload must be complete before the URL expires. Nothing was stored."
    )


class GoneError(ServiceError):
    """An image that was taken down."""

    status_code = 410
    slug = "gone"
    title = "Taken down"
    help = (
        "This is intended. To allow the image again, send DELETE /v1/images/{digest}/tombstone with a token that may "
        "delete, then upload it again."
    )


class PreconditionFailedError(ServiceError):
    """The document has changed since the client read it (RFC 9110 §15.5.13)."""

    status_code = 412
    slug = "precondition-failed"
    title = "Precondition failed"
    help = "Read the document again, apply your change to its current version, and send its new ETag in If-Match."


class PreconditionRequiredError(ServiceError):
    """A change without the ETag of the version that it changes (RFC 6585 §3)."""

    status_code = 428
    slug = "precondition-required"
    title = "Precondition required"
    help = "Send the ETag of the document that you read in If-Match, so that you do not overwrite somebody else's change."


class TooLargeError(ServiceError):
    """An upload that is larger than the limit."""

    status_code = 413
    slug = "too-large"
    title = "Upload too large"
    help = "Make the file smaller, send fewer files in one request, or raise DARKROOM_MAX_UPLOAD_BYTES on the server."


class UnsupportedFormatError(ServiceError):
    """A file that is not an image, or an image in a format that is not supported."""

    status_code = 415
    slug = "unsupported-format"
    title = "Not a supported image"
    help = (
        "Send JPEG, PNG, WebP, GIF, AVIF, HEIC, JPEG XL, TIFF or SVG. The server recognizes the format by the content of the file, not by "
        "its name."
    )


class BrokenImageError(ServiceError):
    """An image that cannot be decoded completely."""

    status_code = 422
    slug = "broken-image"
    title = "Broken image"
    help = "Export or copy the image again: a part of it is missing or damaged. Nothing was stored."


class TooManyPixelsError(ServiceError):
    """An image or a rendition with more pixels than the limit."""

    status_code = 422
    slug = "too-many-pixels"
    title = "Too many pixels"
    help = "Make the image or the requested rendition smaller, or raise the limit that `remedy` names."


class TooComplexError(ServiceError):
    """An image that needs far more time or memory to decode than its number of pixels explains."""

    status_code = 422
    slug = "too-complex"
    title = "Too complex"
    help = (
        "Export the image again without layers, without metadata, or without hundreds of progressive scans. Simplify a "
        "drawing, or export it as PNG. `detail` says what there is too much of."
    )


class CannotFitError(ServiceError):
    """A rendition that exceeds `max_bytes` at every quality."""

    status_code = 422
    slug = "cannot-fit"
    title = "Does not fit"
    help = "Raise `max_bytes`, or request a smaller width or another format."


class RenderGaveUpError(ServiceError):
    """An image whose render process crashed or timed out twice within an hour."""

    status_code = 422
    slug = "render-gave-up"
    title = "Rendering gave up"
    help = (
        "Export the image again, simpler or in another format, and upload that: each attempt to render this one crashed "
        "or timed out. The server tries again an hour after the first of two failed attempts. To make it try at once, "
        "for example after you changed DARKROOM_RENDER_SECONDS or DARKROOM_RENDER_MEMORY_BYTES, delete "
        "`render-failures/` in the store."
    )


class DamagedOriginalError(ServiceError):
    """A stored original whose bytes no longer match its digest."""

    status_code = 500
    slug = "damaged-original"
    title = "Damaged original"
    help = "Upload the same image again: it gets the same digest, and all its URLs work again. Then check the disk or the bucket."


class DamagedDocumentError(ServiceError):
    """A stored document that cannot be read, or that belongs to another image."""

    status_code = 500
    slug = "damaged-document"
    title = "Damaged document"
    help = (
        "Upload the same image again: the server writes a new document, without alt text and focal point. Then check "
        "the disk or the bucket."
    )


class RenderFailedError(ServiceError):
    """A render process ended during a render."""

    status_code = 500
    slug = "render-failed"
    title = "Render failed"
    help = (
        "Try again. If it fails every time, a codec cannot handle the image: please send it to the maintainers. The "
        "server itself keeps running."
    )


class QuotaExceededError(ServiceError):
    """The bytes that a token may take in on one day are used up."""

    status_code = 429
    slug = "quota-exceeded"
    title = "Quota exceeded"
    help = (
        "Wait for as many seconds as Retry-After says: a new day begins at midnight UTC. To send more in a day, raise `bytes_per_day` of "
        "the token in the file that DARKROOM_TOKENS_FILE names."
    )


class TooManyFailuresError(ServiceError):
    """A client has sent many wrong tokens or forged signatures, and this request has one more."""

    status_code = 429
    slug = "too-many-failures"
    title = "Too many failures"
    help = (
        "Use the URLs exactly as the server returned them, and a token that the server knows. Requests with valid ones succeed "
        "meanwhile. Wait for as many seconds as Retry-After says before you try others."
    )


class HeaderTooLargeError(ServiceError):
    """A request whose target and header fields are larger than the limit (RFC 6585 §5)."""

    status_code = 431
    slug = "header-too-large"
    title = "Header too large"
    help = "Send fewer cookies and shorter header fields, or raise DARKROOM_MAX_HEADER_BYTES on the server."


class CdnError(ServiceError):
    """The CDN did not respond, or refused to purge."""

    status_code = 502
    slug = "cdn-failed"
    title = "CDN not purged"
    help = "Send the DELETE again: it purges whatever is left. Check that the CDN's token is valid and may purge."


class SourceFailedError(ServiceError):
    """A source that does not return the object, that does not give access to it, or that cannot be reached.

    A host without an address and a host with an address that is not public get the same error, so that nobody can tell them apart.
    """

    status_code = 502
    slug = "source-failed"
    title = "Source failed"
    help = "Check that this server may read the image in the source, then try again. `received` has the last response of the source."

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
        """Create an error as any `ServiceError`. `source_status` is the status of the source's response, `None` without a response."""
        super().__init__(detail, expected=expected, received=received, remedy=remedy, retry_after_seconds=retry_after_seconds)
        self.source_status = source_status


class OverloadedError(ServiceError):
    """More requests are waiting than the server can process in time."""

    status_code = 503
    slug = "overloaded"
    title = "Too busy"
    help = (
        "Wait for as many seconds as Retry-After says, and try again. If this happens often, add render processes, "
        "another machine, or a CDN in front."
    )


class DeadlineExceededError(ServiceError):
    """A render took longer than a client may wait."""

    status_code = 503
    slug = "deadline-exceeded"
    title = "Took too long"
    help = (
        "Try again: the render goes on, and may be ready by then. Smaller widths, WebP in place of AVIF, and a lower "
        "`effort` take less time."
    )


class TooCostlyError(ServiceError):
    """A render needs more memory than a render process may use."""

    status_code = 503
    slug = "too-costly"
    title = "Too costly"
    help = "Request a smaller rendition, or give render processes more memory with DARKROOM_RENDER_MEMORY_BYTES."


class NewerVersionError(ServiceError):
    """A URL of a pipeline version that this server does not know yet."""

    status_code = 503
    slug = "newer-version"
    title = "Newer version"
    help = "Try again soon: another server of this deployment already runs a newer version, and this one is about to be replaced."


class StorageUnavailableError(ServiceError):
    """The store does not respond, or refuses the request."""

    status_code = 503
    slug = "storage-unavailable"
    title = "Storage unavailable"
    help = (
        "Try again soon. Meanwhile the server still serves renditions that it has in memory. `/health` reports when the "
        "store is available again."
    )


class SourceSlowError(ServiceError):
    """A source that does not respond in time."""

    status_code = 504
    slug = "source-slow"
    title = "Source too slow"
    help = "Try again, or upload the image itself in place of its URL."


class StorageFullError(ServiceError):
    """The store is full."""

    status_code = 507
    slug = "storage-full"
    title = "Storage full"
    help = "Free some space in the store, and send the same upload again. Nothing incomplete was stored."


def every_problem() -> list[type[ServiceError]]:
    """Return one class for each slug, sorted by status and slug."""
    found: dict[str, type[ServiceError]] = {}

    def collect(error: type[ServiceError]) -> None:
        found.setdefault(error.slug, error)
        for narrower in error.__subclasses__():
            collect(narrower)

    collect(ServiceError)
    return sorted(found.values(), key=lambda error: (error.status_code, error.slug))


def sanitize(text: str, limit: int = 120) -> str:
    """Return `text` escaped to printable ASCII and cut to `limit` characters, so that responses and logs may contain it."""
    escaped = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return escaped if len(escaped) <= limit else escaped[:limit] + "…"
