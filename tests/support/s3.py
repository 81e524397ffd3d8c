"""A real S3 server for tests: moto, on a free port of loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import obstore
from obstore.store import S3Store

from tests.support.processes import running
from tests.support.server import HOST, free_port
from tests.support.waiting import PATIENCE_SECONDS

# How many objects a response lists: a tenth of S3's thousand, so that tests of several pages need only a tenth of the uploads.
PAGE_OBJECTS = 100


class Bucket:
    """A bucket of a running server, and the environment variables that a client needs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.name = "pictures"
        self.endpoint = f"http://{HOST}:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        self._process = process

    def objects(self) -> list[str]:
        """Return the keys of all objects."""
        return sorted(entry["path"] for page in obstore.list(self.client()) for entry in page)

    def client(self) -> S3Store:
        """Return an obstore client of the bucket, which does not go through the service."""
        return S3Store(
            self.name,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id="test",
            secret_access_key="test",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def add_bucket(self, name: str) -> None:
        """Make another bucket on the same server."""
        httpx.put(f"{self.endpoint}/{name}", trust_env=False, verify=False, timeout=PATIENCE_SECONDS).raise_for_status()

    def stop(self) -> None:
        """Stop the server, as in an outage."""
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)


@contextmanager
def moto_bucket() -> Iterator[Bucket]:
    """Yield a bucket on a new server."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", HOST, "-p", str(port)]
    null = subprocess.DEVNULL
    environment = os.environ | {"MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE_OBJECTS)}
    with running(command, env=environment, stdin=null, stdout=null, stderr=null) as process:
        bucket = Bucket(process, port)
        _make(bucket)
        yield bucket


def _make(bucket: Bucket) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            # moto does not check signatures.
            httpx.put(f"{bucket.endpoint}/{bucket.name}", trust_env=False, verify=False, timeout=5).raise_for_status()
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
