"""Misses of Darkroom: renditions that were never requested, and whether many clients share one render."""

from __future__ import annotations

from tests.bench import load, measure
from tests.bench.bench import Bench
from tests.bench.client import Client, Image
from tests.bench.report import Row, row
from tests.bench.sides import DARKROOM

WIDTH = 640

# Any number of URLs with the same pixels: boxes of this height or more do not limit the rendition.
_FIRST_BOX_HEIGHT = 2_000


class ColdRenditions:
    """Paths of WebP renditions of an image, 640 wide. All of them take the same work, and none has been requested before."""

    def __init__(self, client: Client, image: Image) -> None:
        self._client = client
        self._image = image
        self._height = _FIRST_BOX_HEIGHT

    def paths(self, count: int) -> list[str]:
        heights = range(self._height, self._height + count)
        self._height += count
        return [self._client.rendition_path(self._image, "webp", width=WIDTH, height=height) for height in heights]


def collapsed_requests(bench: Bench) -> list[Row]:
    """Return how many renders are caused by many clients that request one cold rendition at the same time.

    Two counts from outside, of which the larger one is returned: the bytes that the render processes read, divided by those that one
    render reads; and the responses whose `Cache-Status` says that they were neither collapsed nor hits.
    """
    clients = bench.extent.clients_at_once
    reference, wanted = (
        bench.client.rendition_path(bench.photo, "jpeg", width=WIDTH, height=_FIRST_BOX_HEIGHT + number) for number in range(2)
    )

    def read_bytes() -> int:
        return measure.read_bytes(measure.render_processes(bench.server.process_id))

    before = read_bytes()
    bench.client.rendition(reference)
    middle = read_bytes()
    responses = load.request_at_once(bench.server.port, load.RequestPattern(wanted), clients)
    renders = (read_bytes() - middle) / (middle - before)
    heads = [response.partition(b"\r\n\r\n")[0].lower() for response in responses]
    bodies = {response.partition(b"\r\n\r\n")[2] for response in responses}
    successes = sum(head.startswith(b"http/1.1 200") for head in heads)
    if successes != clients or len(bodies) != 1:
        raise RuntimeError(f"expected 200 and one body for {clients} clients, received {successes} times 200 and {len(bodies)} bodies")
    leaders = sum(b"fwd=uri-miss" in head and b"collapsed" not in head for head in heads)
    note = f"{clients} times 200 and the same bytes; originals read: {renders:.2f}; responses neither collapsed nor hits: {leaders}"
    return [row("many clients of one cold rendition, renders", {DARKROOM: [max(round(renders), leaders)]}, note)]
