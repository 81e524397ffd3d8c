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


class SettingsError(Exception):
    """A setting, or a file that a command reads, cannot be used. The message says what was expected, what came, and what to do."""

    @classmethod
    def invalid(cls, setting: str, expected: str, received: str, remedy: str = "") -> SettingsError:
        """Return the error for a value out of range. `expected` and `received` are phrases, `remedy` is a sentence or empty."""
        return cls(f"{setting} is invalid: expected {expected}, got {received}. {remedy}".rstrip())


class ServiceError(Exception):
    """A failure with a public face. Nothing private goes into its words: paths, secrets and causes belong in the log."""

    status_code: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    # What to do about it in general; the `remedy` of an answer says it of the request at hand.
    help: ClassVar[str] = "Try again. If it stays, the server's log has the reason: it is a mistake of Darkroom's, worth an issue."

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
        self.received = None if received is None else sanitize(received)
        self.remedy = remedy
        self.retry_after_seconds = retry_after_seconds
        self.extra_headers = extra_headers

    @classmethod
    def type_uri(cls) -> str:
        """Return the path of the page that tells what this problem is and what to do: its `type` (RFC 9457 §3.1.1)."""
        return f"/problems/{cls.slug}"

    def problem(self) -> Problem:
        """Return the problem document of this failure."""
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
    """The request cannot be understood."""

    status_code = 400
    slug = "bad-request"
    title = "Bad request"
    help = "Compare what was sent with `expected` and `received` of the answer; `/docs` describes every request with examples."


class EmptyBodyError(BadRequestError):
    """An upload without a byte."""

    slug = "empty-body"
    title = "Empty body"
    help = "Send the bytes of an image as the body. A client that lost the file, or a form whose part is not called `file`, sends nothing."


class BadTransformError(BadRequestError):
    """A transform with an unknown key, a value out of range, options that contradict each other, or another spelling."""

    slug = "bad-transform"
    title = "Bad transform"
    help = (
        "Change or leave out the option that `detail` names. `/docs` lists every option with its range; the playground has a "
        "control for each."
    )


class FormatNotOfferedError(BadRequestError):
    """A rendition in a format that the running libvips cannot write."""

    slug = "format-not-offered"
    title = "Format not offered"
    help = (
        "Ask for another format, or run the server with a libvips that writes this one. `picture` of an image document names "
        "only formats that are offered."
    )


class BadAddressError(BadRequestError):
    """A path that is not the address of a rendition."""

    slug = "bad-address"
    title = "Bad address"
    help = "Use URLs as the server gave them, and make none by hand: POST /v1/images/{digest}/urls makes them."


class UnauthorizedError(ServiceError):
    """A token is needed and none that is known came."""

    status_code = 401
    slug = "unauthorized"
    title = "Unauthorized"
    help = "Send `Authorization: Bearer <token>` with a token of DARKROOM_TOKENS. Never put it into a URL."


class ForbiddenError(ServiceError):
    """The token does not carry the scope that this needs."""

    status_code = 403
    slug = "forbidden"
    title = "Forbidden"
    help = "Use a token that has the scope that `expected` names, or give this one the scope in DARKROOM_TOKENS: `token:ingest+read`."


class BadSignatureError(ServiceError):
    """An address that none of the configured keys has signed."""

    status_code = 403
    slug = "bad-signature"
    title = "Bad signature"
    help = (
        "Use URLs as the server gave them: a changed transform needs a new one. After a change of keys, keep the old key in "
        "DARKROOM_KEYS behind the new one."
    )


class SourceRefusedError(ServiceError):
    """A URL that is not fetched: its host is not among those allowed."""

    status_code = 403
    slug = "source-refused"
    title = "Source refused"
    help = "List the host in DARKROOM_PULL_HOSTS if images may come from there, or upload the bytes of the image."


class NotFoundError(ServiceError):
    """Nothing is here under that name."""

    status_code = 404
    slug = "not-found"
    title = "Not found"
    help = "Check the digest or the path. An image is here once its upload was answered with 200 or 201."


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
    """An upload that drips."""

    status_code = 408
    slug = "slow-upload"
    title = "Upload too slow"
    help = "Send again over a better connection; nothing of the broken upload was kept."


class GoneError(ServiceError):
    """An image that has been taken down."""

    status_code = 410
    slug = "gone"
    title = "Taken down"
    help = "This is meant. Who may delete can allow the image again with DELETE /v1/images/{digest}/tombstone, and upload it once more."


class PreconditionFailedError(ServiceError):
    """What was to be changed is no longer what the client has seen (RFC 9110 §15.5.13)."""

    status_code = 412
    slug = "precondition-failed"
    title = "Precondition failed"
    help = "Read the document again, make the change to what it says now, and send its new ETag in If-Match."


class PreconditionRequiredError(ServiceError):
    """A change that does not say of what (RFC 6585 §3)."""

    status_code = 428
    slug = "precondition-required"
    title = "Precondition required"
    help = "Send the ETag of the document that was read in If-Match, so that nobody's change is overwritten unseen."


class TooLargeError(ServiceError):
    """An upload of more bytes than are taken."""

    status_code = 413
    slug = "too-large"
    title = "Upload too large"
    help = "Make the file smaller, send fewer files at once, or raise DARKROOM_MAX_UPLOAD_BYTES on the server."


class UnsupportedFormatError(ServiceError):
    """Bytes that are no image, or an image in a format that is not offered."""

    status_code = 415
    slug = "unsupported-format"
    title = "Not a supported image"
    help = "Send JPEG, PNG, WebP, GIF, AVIF, HEIC, TIFF or SVG. What a file is, is found from its bytes, not from its name."


class BrokenImageError(ServiceError):
    """An image that cannot be decoded to its end."""

    status_code = 422
    slug = "broken-image"
    title = "Broken image"
    help = "Export or copy the image again: part of it is missing or damaged. Nothing of it was kept."


class TooManyPixelsError(ServiceError):
    """An image, or a rendition, of more pixels than are taken."""

    status_code = 422
    slug = "too-many-pixels"
    title = "Too many pixels"
    help = "Make the image, or the rendition that was asked for, smaller, or raise the limit that `remedy` names."


class TooComplexError(ServiceError):
    """An image that costs far more time or memory to decode than its pixels explain."""

    status_code = 422
    slug = "too-complex"
    title = "Too complex"
    help = (
        "Export the image again from the program that made it, without layers, metadata, or hundreds of progressive scans. Simplify a "
        "drawing, or export it as PNG. `detail` says what there is too much of."
    )


class CannotFitError(ServiceError):
    """A rendition that no quality makes as small as it must be."""

    status_code = 422
    slug = "cannot-fit"
    title = "Does not fit"
    help = "Raise `max_bytes`, or ask for a smaller width or another format."


class RenderGaveUpError(ServiceError):
    """An image whose rendering ended its render process twice within an hour."""

    status_code = 422
    slug = "render-gave-up"
    title = "Rendering gave up"
    help = (
        "Export the image again, simpler or in another format, and upload that: each attempt to render this one crashed or timed out. "
        "It is tried again an hour after the first of two failed attempts. After a change of DARKROOM_RENDER_SECONDS or "
        "DARKROOM_RENDER_MEMORY_BYTES, delete `render-failures/` in the store to have it tried at once."
    )


class DamagedOriginalError(ServiceError):
    """A stored original whose bytes are no longer those of its digest."""

    status_code = 500
    slug = "damaged-original"
    title = "Damaged original"
    help = "Upload the same image again: it gets the same digest, and every URL of it works again. Then look at the disk or the store."


class DamagedDocumentError(ServiceError):
    """A stored document that cannot be read, or is another image's."""

    status_code = 500
    slug = "damaged-document"
    title = "Damaged document"
    help = "Upload the same image again: its document is made anew, without text and focal point. Then look at the disk or the store."


class RenderFailedError(ServiceError):
    """A render process ended in the middle of its work."""

    status_code = 500
    slug = "render-failed"
    title = "Render failed"
    help = (
        "Try again. If it fails each time, the image is one that a codec cannot bear: send it to the maintainers, the server "
        "itself goes on."
    )


class HeaderTooLargeError(ServiceError):
    """A request whose target and header fields are larger than is read (RFC 6585 §5)."""

    status_code = 431
    slug = "header-too-large"
    title = "Header too large"
    help = "Send fewer cookies and shorter header fields, or raise DARKROOM_MAX_HEADER_BYTES on the server."


class CdnError(ServiceError):
    """The CDN in front was not reached, or refused to purge."""

    status_code = 502
    slug = "cdn-failed"
    title = "CDN not purged"
    help = "Send the DELETE again: it purges whatever was left undone. See that the CDN's token is valid and may purge."


class SourceFailedError(ServiceError):
    """A remote source that has no image, or that cannot be reached. `source_status` is the status of its response, if it sent one.

    A host without an address and one with an address that is not public are the same failure.
    """

    status_code = 502
    slug = "source-failed"
    title = "Source failed"
    help = "See that the source answers with an image at this URL, then try again. What it answered last is told in `received`."

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
    slug = "overloaded"
    title = "Too busy"
    help = (
        "Wait as many seconds as Retry-After says and ask again. If it comes often: more render processes, another machine, or "
        "a CDN in front."
    )


class DeadlineExceededError(ServiceError):
    """A render took longer than a client is kept waiting."""

    status_code = 503
    slug = "deadline-exceeded"
    title = "Took too long"
    help = "Ask again: what was begun may be ready by then. Smaller widths, WebP in place of AVIF, and a lower `effort` take less time."


class TooCostlyError(ServiceError):
    """A render needs more memory than a render process may have."""

    status_code = 503
    slug = "too-costly"
    title = "Too costly"
    help = "Ask for a smaller rendition, or give render processes more memory with DARKROOM_RENDER_MEMORY_BYTES."


class NewerVersionError(ServiceError):
    """An address of a pipeline version that this process does not know yet."""

    status_code = 503
    slug = "newer-version"
    title = "Newer version"
    help = "Ask again shortly: another process of this deployment already runs a newer version, and this one is about to be replaced."


class StorageUnavailableError(ServiceError):
    """The store cannot be reached, or refuses."""

    status_code = 503
    slug = "storage-unavailable"
    title = "Storage unavailable"
    help = "Ask again shortly. Renditions in memory are served meanwhile; `/health` says when the store is back."


class SourceSlowError(ServiceError):
    """A remote source that does not answer in time."""

    status_code = 504
    slug = "source-slow"
    title = "Source too slow"
    help = "Try again, or upload the bytes of the image in place of its URL."


class StorageFullError(ServiceError):
    """The store has no room."""

    status_code = 507
    slug = "storage-full"
    title = "Storage full"
    help = "Make room in the store. Nothing half was kept; the same upload can be sent again."


def every_problem() -> list[type[ServiceError]]:
    """Return every kind of failure by its status, each kind once."""
    found: dict[str, type[ServiceError]] = {}

    def collect(error: type[ServiceError]) -> None:
        found.setdefault(error.slug, error)
        for narrower in error.__subclasses__():
            collect(narrower)

    collect(ServiceError)
    return sorted(found.values(), key=lambda error: (error.status_code, error.slug))


RAISE_UPLOAD_LIMIT = "Send a smaller file, or raise DARKROOM_MAX_UPLOAD_BYTES on the server."


def body_too_large(max_bytes: int, received: str, remedy: str = RAISE_UPLOAD_LIMIT) -> TooLargeError:
    """Return the error for a request body of more than `max_bytes` bytes. It closes the connection, because the rest is not read."""
    return TooLargeError(
        "The request's body is too large.",
        expected=f"at most {max_bytes} bytes",
        received=received,
        remedy=remedy,
        extra_headers=(("Connection", "close"),),
    )


def sanitize(text: str, limit: int = 120) -> str:
    """Return `text` short enough and without control or non-ASCII characters, so that it may be echoed and logged."""
    escaped = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return escaped if len(escaped) <= limit else escaped[:limit] + "…"
