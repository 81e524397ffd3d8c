"""The server of a soak with everything around it: a store that can fail, and sources of which one always fails."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import httpx
import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from service.settings.sections import available_cores
from tests.support.buckets import BucketServer, Failure, bucket_server
from tests.support.s3 import moto_bucket
from tests.support.s3_proxy import S3Proxy, s3_proxy_of
from tests.support.server import END_SECONDS, HOST, Server, darkroom, free_port
from tests.support.waiting import PATIENCE_SECONDS

Store: TypeAlias = Literal["bucket", "disk"]

MEBIBYTE = 1 << 20
MAX_UPLOAD_BYTES = 4 * MEBIBYTE
# Small, so that it is full after the first seconds, and all growth after that is seen.
CACHE_BYTES = 8 * MEBIBYTE
WAIT_SECONDS = 10.0

# The sources by name. Objects of `shop` whose names begin with `broken` fail, and hosts that are not public, as `inside`, always do.
SHOP, INSIDE = "shop", "inside"
BROKEN = "broken"


# Lines of the log. An image that is being warmed when its render process is killed for the second time is given up.
_PERMITTED = re.compile(r'"an image was not warmed".*"problem": ?"render-')
_ERROR = re.compile(r'Traceback|"level": ?"(error|critical)"')


class System(msgspec.Struct, frozen=True):
    """A running server, and what a soak needs to know of it.

    key: the signing key, hexadecimal. token: has every scope. metrics_port: that of its metrics.
    store: the proxy in front of its bucket, `None` for a store on disk.
    shop: the bucket of the source `shop`.
    """

    server: Server
    key: str
    token: str
    metrics_port: int
    store: S3Proxy | None
    shop: BucketServer

    def replaced_render_processes(self) -> dict[str, int]:
        """Return how many render processes the server has replaced so far, by reason; one may end before it has started."""
        response = httpx.get(f"http://{HOST}:{self.metrics_port}/metrics", trust_env=False, verify=False, timeout=PATIENCE_SECONDS)
        return {
            sample.labels.get("reason", "not started"): int(sample.value)
            for family in text_string_to_metric_families(response.raise_for_status().text)
            for sample in family.samples
            if sample.name in {"darkroom_render_process_ends_total", "darkroom_render_start_failures_total"}
        }

    def stop(self) -> list[str]:
        """Stop the server, and return what is wrong with its log or its end."""
        processes = self.server.processes()
        lines = self.server.log().splitlines()
        found = [f"the server logged {line[:500]}" for line in lines if _ERROR.search(line) and not _PERMITTED.search(line)]
        if (code := self.server.stop()) != 0:
            found.append(f"the server ended with {code}")
        _, left = psutil.wait_procs(processes, END_SECONDS)
        return [*found, *(f"process {process.pid} of the server is left" for process in left)]


@contextmanager
def running_system(folder: Path, store: Store = "bucket", **settings: object) -> Iterator[System]:
    """Yield a system whose data is in `folder`; `settings` are further ones of the server."""
    key, token = secrets.token_hex(32), f"owner-{secrets.token_hex(12)}"
    with ExitStack() as stack:
        shop = stack.enter_context(bucket_server("gs"))
        shop.failure_for = _failure_for
        variables: dict[str, object] = {f"DARKROOM_SOURCE_{SHOP.upper()}_{name}": value for name, value in shop.environment.items()}
        proxy = None
        if store == "bucket":
            bucket = stack.enter_context(moto_bucket())
            proxy = stack.enter_context(s3_proxy_of(bucket))
            variables |= {"store": f"s3://{bucket.name}", **proxy.environment}
        else:
            variables["renditions_bytes"] = 64 * MEBIBYTE
        variables |= {
            "keys": key,
            "tokens": token,
            "cache_bytes": CACHE_BYTES,
            "max_upload_bytes": MAX_UPLOAD_BYTES,
            "sources": f"{SHOP}={shop.location}; {INSIDE}=http://localhost:9/up",
            "source_seconds": 30,
            "trusted_proxies": f"{HOST}/32",
            "wait_seconds": WAIT_SECONDS,
            "render_seconds": 2 * WAIT_SECONDS,
            "warm": "webp,fallback",
            "render_processes": available_cores(),
            "metrics_port": free_port(),
            **settings,
        }
        server = stack.enter_context(darkroom(folder, **variables))
        yield System(server, key, token, int(str(variables["metrics_port"])), proxy, shop)


def _failure_for(key: str) -> Failure | None:
    return Failure(500) if key.startswith(BROKEN) else None
