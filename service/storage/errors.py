"""What a store says when it fails, in words that tell what helps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from obstore.exceptions import BaseError

from service.errors import StorageFullError, StorageUnavailableError

log = structlog.get_logger(__name__)

# ENOSPC and EDQUOT as obstore and as Python spell them, and what S3 servers say.
_FULL = ("os error 28", "os error 122", "[Errno 28]", "[Errno 122]", "QuotaExceeded", "InsufficientStorage")

# What the words of a failure tell, and what helps. https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_CAUSES = (
    (
        ("NoSuchBucket", "InvalidBucketName"),
        ("The bucket of the store does not exist.", "Create it (on Fly: fly storage create), or correct DARKROOM_STORE or BUCKET_NAME."),
    ),
    (
        ("RequestTimeTooSkewed", "RequestExpired"),
        (
            "The store refuses what this server signs because the clocks of the two differ.",
            "Set the server's clock by NTP; after a suspend it rights itself within seconds.",
        ),
    ),
    (
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "401 Unauthorized"),
        (
            "The store does not accept this server's credentials.",
            "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (on Fly: fly storage create sets them), and AWS_REGION if there is one.",
        ),
    ),
    (
        ("403 Forbidden",),
        (
            "The store denies this server access.",
            "Let its access key do s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket in the bucket.",
        ),
    ),
    (
        ("redirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"),
        ("The bucket of the store is in another region.", "Correct AWS_REGION or AWS_ENDPOINT_URL_S3."),
    ),
    (
        ("os error 13", "os error 30", "[Errno 13]", "[Errno 30]"),
        ("The store's folder cannot be written.", "Let the user that the server runs as own the folder, and mount it writable."),
    ),
    (
        ("status code: 5", "status code: 429"),
        ("The store answers with errors.", "Try again in a few seconds; whoever runs the store can tell more."),
    ),
    (
        ("nothing came", "error sending request", "HTTP error"),
        ("The store cannot be reached.", "Try again in a few seconds; if that does not help, see whether AWS_ENDPOINT_URL_S3 is right."),
    ),
)
_UNKNOWN_CAUSE = ("The store does not answer as it should.", "Try again in a few seconds; the server's log has the reason.")


@asynccontextmanager
async def failures(doing: str) -> AsyncIterator[None]:
    """Turn what obstore and the disk raise meanwhile into `StorageFullError` and `StorageUnavailableError`."""
    try:
        yield
    except (BaseError, OSError) as error:
        log.warning("the store failed", doing=doing, cause=str(error).splitlines()[0])
        text = str(error)
        if any(sign in text for sign in _FULL):
            raise StorageFullError(
                "The store has no room for this.", remedy="Free room in the store, then send it again; nothing of it was kept."
            ) from error
        detail, remedy = next((told for signs, told in _CAUSES if any(sign in text for sign in signs)), _UNKNOWN_CAUSE)
        raise StorageUnavailableError(detail, remedy=remedy, retry_after_seconds=5) from error


def require_bucket(error: FileNotFoundError) -> None:
    """Return if it is the object that is missing."""
    if "NoSuchBucket" in str(error):
        raise error
