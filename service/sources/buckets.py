"""Buckets as sources: S3 and the stores that speak its protocol, Google Cloud Storage, and Azure Blob Storage, through obstore.

Objects are read as a stream into the upload's spool file, so that memory does not depend on their size. All three stores send an `ETag`
with every object (obstore requires one), so a conditional request needs no `Last-Modified`.

**An object that changes while it is read.** A response is a snapshot of one version. If it breaks off, obstore requests the rest as a
range, and goes on only if the `ETag` is still the same. Otherwise the fetch fails, and the upload that holds the first part is discarded.

**Beware.** A missing bucket and a missing object are both `FileNotFoundError`, and only the body of the response says which. A listing
fails as a whole for a single key that is not a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import obstore
import structlog
from obstore.exceptions import BaseError, InvalidPathError, NotModifiedError

from service.errors import BadAddressError, SourceFailedError, SourceSlowError, TooLargeError
from service.settings.bucket_variables import BucketVariables, variables_of
from service.settings.source_locations import SourceKind, SourceLocation
from service.sources.bucket_stores import CONNECT_SECONDS, NAMES, SILENCE_SECONDS, Store, names_in, open_store
from service.sources.source import SourceObject, Validators, Write

if TYPE_CHECKING:
    from obstore import BytesStream, ObjectMeta

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 64 << 10

# How many keys a listing takes over at a time; a store returns at most so many per request.
_PAGE_OBJECTS = 1_000

# Some uploaders of S3 store the coding of the transfer with the object, whose bytes do not have it.
_NO_CODING = frozenset({"", "identity", "aws-chunked"})

# The parts of obstore's error messages: the response of the store, and a request for credentials in place of one to the bucket.
_RESPONSE = re.compile(r" - Server returned non-2xx status code: (\d{3})(?:.*?<Code>([A-Za-z]+)</Code>)?", re.DOTALL)
_CREDENTIALS_REQUEST = re.compile(r"Generic \w+ error: .*?Error performing (?:token request|[A-Z]+ http://(?:169\.254\.|metadata))")
_REDIRECT = re.compile(r"Generic \w+ error: .*?Received redirect without LOCATION")
_SLOW = re.compile(r"Generic \w+ error: .*?kind: Timeout", re.DOTALL)
_BAD_KEY = re.compile(r'Path "(.*?)"(?:: | contained)', re.DOTALL)


class _Cause(msgspec.Struct, frozen=True):
    """Why a bucket failed.

    remedy: what to do; it names variables of the kind as `{credentials}`, `{anonymous}`, `{region}` and `{endpoint}`.
    codes: the error codes in the body of a response that has this cause. statuses: those of a response without such a code.
    """

    detail: str
    remedy: str
    codes: frozenset[str] = frozenset()
    statuses: range = range(0)


# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# https://cloud.google.com/storage/docs/xml-api/reference-status
# https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-error-codes
_NO_BUCKET = _Cause(
    "The bucket of this source does not exist, or is not public.",
    "Correct its name in DARKROOM_SOURCES, {endpoint}, or {credentials}.",
    frozenset({"NoSuchBucket", "InvalidBucketName", "ContainerNotFound", "InvalidResourceName", "ResourceNotFound"}),
)
_OTHER_REGION = _Cause(
    "The bucket of this source is in another region.",
    "Correct {region}.",
    frozenset({"AuthorizationHeaderMalformed", "IllegalLocationConstraint", "PermanentRedirect"}),
)
_NO_CREDENTIALS = _Cause(
    "The server has no valid credentials for this source.", "Set {credentials}, or {anonymous}=true if the bucket is public."
)
_BAD_CREDENTIALS = _Cause(
    "The bucket of this source does not accept the server's credentials.",
    "Correct {credentials}, and check the server's clock.",
    frozenset(
        {
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "ExpiredToken",
            "InvalidSecurity",
            "AuthenticationFailed",
            "AuthorizationFailure",
            "InvalidAuthenticationInfo",
            "RequestTimeTooSkewed",
        }
    ),
    range(401, 402),
)
_DENIED = _Cause(
    "The bucket of this source denies the server access.",
    "Allow the server to read it ({permissions}), or correct {credentials}.",
    frozenset({"AccessDenied", "PublicAccessNotPermitted", "AuthorizationPermissionMismatch"}),
    range(403, 404),
)
_BUSY = _Cause(
    "The bucket of this source responds with errors.",
    "Try again later. If it lasts, ask the operator of the bucket.",
    frozenset({"SlowDown", "ServerBusy"}),
    range(429, 600),
)
_UNEXPECTED = _Cause(
    "The bucket of this source responds with something else than the object.",
    "Check {endpoint}. The server's log has the response.",
    statuses=range(300, 500),
)
_UNREACHABLE = _Cause(
    "The bucket of this source cannot be reached, or it redirects to another host.", "Try again later. If it lasts, check {endpoint}."
)
_BROKEN_OFF = _Cause("The object changed, or its bucket went away, while it was read.", "Try again.")

# The first with the code of a response counts, then the first with its status.
_CAUSES = (_NO_BUCKET, _OTHER_REGION, _BAD_CREDENTIALS, _DENIED, _BUSY, _UNEXPECTED)

# Without the permission to list, S3 and Google Cloud Storage deny access to an object that does not exist.
_PERMISSIONS: Mapping[SourceKind, str] = {
    "s3": "s3:GetObject and s3:ListBucket; without the latter, missing objects are denied too",
    "gs": "storage.objects.get and storage.objects.list; without the latter, missing objects are denied too",
    "az": "the role Storage Blob Data Reader, or a SAS token with the permissions r and l",
}


class Bucket:
    """A bucket, or the part of one below a prefix, as a source."""

    def __init__(
        self, name: str, location: SourceLocation, variables: BucketVariables, *, max_bytes: int, use_machine_role: bool = False
    ) -> None:
        """Make a client of a bucket; it connects with its first request. Raises `SettingsError`.

        name: the source's name in `DARKROOM_SOURCES`.
        location: the bucket, and the prefix of its keys.
        variables: the credentials, and how the bucket is reached.
        max_bytes: the maximum size of an object in bytes.
        use_machine_role: whether a bucket without credentials is read with the role of this machine or container.
        """
        self._name = name
        self._location = location
        self._variables = variables
        self._store: Store = open_store(location, variables, use_machine_role=use_machine_role)
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"<Bucket {self._name}: {self._location.url('')}>"

    async def fetch(self, path: str, validators: Validators, write: Write) -> Validators | None:
        """See `Source.fetch`. An object that is stored compressed is a `SourceFailedError`."""
        key = self._location.prefix + path
        try:
            result = await self._store.get_async(key, options={"if_none_match": validators.etag} if validators.etag else {})
        except NotModifiedError:
            return None
        except (BaseError, OSError) as error:
            raise self._translate(error, key) from error
        meta = result.meta
        self._check(meta, str(result.attributes.get("Content-Encoding", "")))
        received = 0
        chunks = result.stream(min_chunk_size=_CHUNK_BYTES)
        while (chunk := await self._next(chunks, key)) is not None:
            received += len(chunk)
            if received > self._max_bytes:
                raise self._too_large(received)
            await write(chunk)
        if received != meta["size"]:
            raise self._failed(_BROKEN_OFF, f"{received} of {meta['size']} bytes")
        return Validators(meta["e_tag"] or "")

    async def _next(self, chunks: BytesStream, key: str) -> bytes | None:
        """Return the next part of a body, `None` at its end."""
        try:
            chunk = await anext(chunks, None)
        except (BaseError, OSError) as error:
            translated = self._translate(error, key)
            if isinstance(translated, SourceSlowError):
                raise translated from error
            raise self._failed(_BROKEN_OFF, "a part of its bytes") from error
        return None if chunk is None else bytes(chunk)

    async def list(self, after: str, limit: int) -> Sequence[SourceObject]:
        """See `Source.list`. Objects without bytes, which mark folders, are left out."""
        found: list[SourceObject] = []
        prefix = self._location.prefix
        # Azure's own offset is inclusive, and its older versions ignore it.
        offset = prefix + after if after else None
        try:
            async for page in obstore.list(self._store, prefix.rstrip("/") or None, offset=offset, chunk_size=_PAGE_OBJECTS):
                objects = (SourceObject(meta["path"].removeprefix(prefix), meta["size"]) for meta in page)
                found += [entry for entry in objects if entry.bytes and entry.path > after]
                if len(found) >= limit:
                    break
        except (BaseError, OSError) as error:
            raise self._translate(error) from error
        except ValueError as error:
            raise BadAddressError(
                "The path after which the page begins is not that of an object.",
                expected="a path without empty segments, without `.` and `..` as segments, and without control characters",
                received=after,
                remedy='Follow the Link with rel="next" from page to page.',
            ) from error
        return found[:limit]

    def _check(self, meta: ObjectMeta, coding: str) -> None:
        """Raise an error for an object that cannot be an image, or is too large, before its body is read."""
        if meta["size"] > self._max_bytes:
            raise self._too_large(meta["size"])
        if coding.lower() not in _NO_CODING:
            raise SourceFailedError(
                "The object is stored compressed a second time.",
                expected="no Content-Encoding",
                received=coding,
                remedy="Upload the object to its bucket without compression.",
            )

    def _too_large(self, size: int) -> TooLargeError:
        return TooLargeError(
            "The source's image is too large.",
            expected=f"at most {self._max_bytes} bytes",
            received=f"{size} bytes",
            remedy="Use a smaller image, or raise DARKROOM_MAX_UPLOAD_BYTES on the server.",
        )

    def _translate(self, error: Exception, key: str | None = None) -> SourceFailedError | SourceSlowError:
        """Return the service's own error for one of obstore, whose text goes no further than the log. `key` is that of the object."""
        text = str(error)
        # Some messages begin with the key, which may have any text.
        response = _RESPONSE.search(text if key is None else text.partition(f" {key}")[2] or text)
        status, code = (int(response[1]), response[2] or "") if response else (0, "")
        cause = next((cause for cause in _CAUSES if code in cause.codes), None)
        if status == 404 and key is not None and cause is None:
            return SourceFailedError(
                "The source has no image at this path.",
                expected="an object",
                received="none",
                remedy="Correct the path, or upload the object to its bucket.",
                source_status=404,
            )
        log.warning("a bucket failed", source=self._name, key=key, cause=text.splitlines()[0])
        if not response or _CREDENTIALS_REQUEST.match(text):
            return self._without_response(error)
        cause = cause or next((cause for cause in _CAUSES if status in cause.statuses), _UNEXPECTED)
        # Those of a missing object would say that its last image must not be shown any more.
        return self._failed(cause, f"status {status} {code}".rstrip(), None if status in {404, 410} else status)

    def _without_response(self, error: Exception) -> SourceFailedError | SourceSlowError:
        text = str(error)
        if isinstance(error, InvalidPathError):
            bad = _BAD_KEY.search(text)
            return SourceFailedError(
                "The bucket has an object whose key is not a path, so it cannot be listed.",
                expected="keys without empty segments, without `.` and `..` as segments, and without control characters",
                received=bad[1] if bad else None,
                remedy="Rename the object, or use a prefix in DARKROOM_SOURCES that excludes it.",
            )
        if _CREDENTIALS_REQUEST.match(text):
            return self._failed(_NO_CREDENTIALS, None)
        if _REDIRECT.match(text):
            return self._failed(_OTHER_REGION, "a redirect")
        if _SLOW.match(text):
            return SourceSlowError(
                "The source does not respond.",
                expected=f"a connection within {CONNECT_SECONDS:g} seconds, and no silence longer than {SILENCE_SECONDS:g}",
                received="none",
                remedy="Try again later.",
                retry_after_seconds=30,
            )
        return self._failed(_UNREACHABLE, None)

    def _failed(self, cause: _Cause, received: str | None, status: int | None = None) -> SourceFailedError:
        kind = self._location.kind
        names = {key: names_in(text, self._variables) for key, text in NAMES[kind].items()}
        return SourceFailedError(
            cause.detail,
            expected=f"an object in the bucket of the source `{self._name}`",
            received=received,
            remedy=cause.remedy.format(permissions=_PERMISSIONS[kind], **names),
            retry_after_seconds=30,
            source_status=status,
        )


def open_bucket(
    name: str, location: SourceLocation, environ: Mapping[str, str], *, max_bytes: int, use_machine_role: bool = False
) -> Bucket:
    """Return the bucket of a source, configured by environment variables; see `Bucket` for the rest."""
    return Bucket(name, location, variables_of(name, location, environ), max_bytes=max_bytes, use_machine_role=use_machine_role)
