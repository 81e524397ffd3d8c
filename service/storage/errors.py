"""The errors of obstore and of disks, translated into the service's own: what is wrong with the store, and what to do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import structlog
from obstore.exceptions import BaseError

from service import instruments
from service.concurrency.spans import stage
from service.errors import StorageFullError, StorageUnavailableError
from service.instruments import StoreOperation

log = structlog.get_logger(__name__)

# ENOSPC and EDQUOT in the wording of obstore and of Python, and the error codes of S3 servers.
_FULL = ("os error 28", "os error 122", "[Errno 28]", "[Errno 122]", "QuotaExceeded", "InsufficientStorage")

# Texts in an error's message, and the detail and the remedy that they lead to; the first row with a match counts.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_CAUSES = (
    (
        ("NoSuchBucket", "InvalidBucketName"),
        ("The bucket of the store does not exist.", "Create it (on Fly: fly storage create), or correct DARKROOM_STORE or BUCKET_NAME."),
    ),
    (
        ("RequestTimeTooSkewed", "RequestExpired"),
        (
            "The store rejects this server's signatures because their clocks differ.",
            "Set the server's clock by NTP; after a suspend it corrects itself within seconds.",
        ),
    ),
    (
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "401 Unauthorized"),
        (
            "The store does not accept this server's credentials.",
            "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (on Fly: fly storage create sets them), and AWS_REGION if it is set.",
        ),
    ),
    (
        ("403 Forbidden",),
        (
            "The store denies this server access.",
            "Allow its access key s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket in the bucket.",
        ),
    ),
    (
        ("redirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"),
        ("The bucket of the store is in another region.", "Correct AWS_REGION or AWS_ENDPOINT_URL_S3."),
    ),
    (
        ("os error 13", "os error 30", "[Errno 13]", "[Errno 30]"),
        ("The folder of the store cannot be written.", "Make the user that the server runs as its owner, and mount it writable."),
    ),
    (
        ("status code: 5", "status code: 429"),
        ("The store responds with errors.", "Try again in a few seconds. If it lasts, ask the operator of the store."),
    ),
    (
        ("no response within", "error sending request", "HTTP error"),
        ("The store cannot be reached.", "Try again in a few seconds. If it lasts, check AWS_ENDPOINT_URL_S3."),
    ),
)
_UNKNOWN_CAUSE = ("The store failed.", "Try again in a few seconds. The server's log has the cause.")


@asynccontextmanager
async def translate_errors(operation: StoreOperation, key: str = "") -> AsyncIterator[None]:
    """Turn errors of obstore and of the disk into `StorageFullError` and `StorageUnavailableError`.

    `operation`: for the log, and for the metric that counts them.
    `key`: that of the object. With one, the operation is a stage of the current trace.
    """
    try:
        with stage(f"store {operation}", store_key=key) if key else nullcontext():
            yield
    except (BaseError, OSError) as error:
        text = str(error)
        log.warning("the store failed", operation=operation, cause=text.splitlines()[0])
        if any(sign in text for sign in _FULL):
            instruments.STORE_ERRORS.add(operation, "full")
            raise StorageFullError(
                "The store is full.", remedy="Free space in the store, then send the request again. Nothing of it was stored."
            ) from error
        instruments.STORE_ERRORS.add(operation, "unavailable")
        detail, remedy = next((cause for signs, cause in _CAUSES if any(sign in text for sign in signs)), _UNKNOWN_CAUSE)
        raise StorageUnavailableError(detail, remedy=remedy, retry_after_seconds=5) from error


def require_bucket(error: FileNotFoundError) -> None:
    """Return if an object is missing; raises the error if it is the bucket."""
    if "NoSuchBucket" in str(error):
        raise error
