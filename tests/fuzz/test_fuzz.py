"""The fuzzer: its inputs are reproducible, its mutations keep checksums right, it detects faults; and a run of a minute."""

from __future__ import annotations

import functools
import math
import signal
import zlib
from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.urls.signing import Signer
from tests.fuzz.campaign import MAX_CPU_SECONDS, RENDER_MEMORY_BYTES, SETTINGS, SLOTS, Plan, run
from tests.fuzz.canaries import Canaries
from tests.fuzz.cases import Cases
from tests.fuzz.client import Client
from tests.fuzz.containers import CONTAINERS, png_parts
from tests.fuzz.declared import UNKNOWN_PIXELS, pixels
from tests.fuzz.judge import Input, judge
from tests.fuzz.report import input_bytes
from tests.fuzz.seeds import DRAWING, Kind, seeds
from tests.fuzz.structures import change_profile, mutators, name_of
from tests.fuzz.watch import Watch
from tests.promises.figures import RecordFigure
from tests.support.images import p3_profile
from tests.support.server import darkroom
from tests.support.waiting import PATIENCE_SECONDS

KEY = "7f" * 32
DIGEST = "a" * 32

INPUTS = 300

# Made only once, because it takes a second.
good_seeds = functools.cache(seeds)


def cases(seed: int) -> Cases:
    return Cases(seed, good_seeds(), [DIGEST], Signer([bytes.fromhex(KEY)]), b"token")


def test_inputs_of_the_same_seed_are_reproducible_and_differ_from_those_of_another_seed() -> None:
    numbers = range(1, 100)
    ours = [cases(1).make(number) for number in numbers]
    assert ours == [cases(1).make(number) for number in numbers]
    assert len({input_bytes(case) for case in ours} & {input_bytes(cases(2).make(number)) for number in numbers}) < 10


def test_file_split_into_parts_and_joined_is_unchanged() -> None:
    for seed in good_seeds():
        if seed.kind in CONTAINERS and seed.name.startswith("generated"):
            container = CONTAINERS[seed.kind]
            assert container.join(container.split(seed.body)) == seed.body, seed.name


def test_seed_in_a_format_with_a_declared_size_declares_less_than_a_megapixel() -> None:
    for seed in good_seeds():
        if seed.name.startswith("generated"):
            found = pixels(seed.kind, seed.body)
            assert found == UNKNOWN_PIXELS if seed.kind == "svg" else 0 < found < 1_000_000, seed.name


def test_png_with_a_mutated_chunk_has_right_checksums() -> None:
    body = next(seed.body for seed in good_seeds() if seed.kind == "png")
    change_part = next(mutator for mutator in mutators("png") if name_of(mutator) == "change_part")
    for number in range(200):
        rng = Random(number)
        out, at = change_part(body, rng, [body]), 8
        for part in png_parts(out):
            at += 8 + len(part)
            assert out[at - 4 : at] == zlib.crc32(part).to_bytes(4, "big")


def test_changed_profile_keeps_its_length_and_sometimes_has_a_type_name_that_is_not_ascii() -> None:
    changed = [change_profile(p3_profile(), Random(number)) for number in range(400)]
    assert {len(profile) for profile in changed} == {len(p3_profile())}
    table = range(132, 132 + 12 * p3_profile()[131], 12)
    names = [
        profile[at : at + 4]
        for profile in changed
        for entry in table
        if (at := int.from_bytes(profile[entry + 4 : entry + 8], "big")) < 2_000
    ]
    assert any(name and max(name) > 0x7F for name in names)


@settings(deadline=None, max_examples=200)
@given(
    body=st.binary(min_size=1, max_size=300),
    kind=st.sampled_from(["jpeg", "png", "gif", "webp", "avif", "heic", "tiff", "svg"]),
    number=st.integers(0, 1 << 32),
)
def test_mutation_of_any_bytes_returns_bytes(body: bytes, kind: Kind, number: int) -> None:
    rng = Random(number)
    for mutator in mutators(kind):
        out = mutator(body, rng, [body, DRAWING])
        assert isinstance(out, bytes)
        assert pixels(kind, out) >= 0


PROBLEM = {"content-type": "application/problem+json"}


def problem(status: int, kind: str) -> bytes:
    return msgspec.json.encode({"type": f"/problems/{kind}", "title": "T", "status": status, "detail": "D."})


@pytest.mark.parametrize(
    ("kind", "status", "headers", "body", "is_finding"),
    [
        ("image", 201, {}, b"{}", False),
        ("image", 422, PROBLEM, problem(422, "broken-image"), False),
        ("image", 422, PROBLEM, problem(415, "broken-image"), True),
        ("image", 422, PROBLEM, b"no JSON", True),
        ("image", 422, {"content-type": "text/plain"}, b"no", True),
        ("image", 500, PROBLEM, problem(500, "render-failed"), True),
        ("image", 503, PROBLEM, problem(503, "overloaded"), True),
        ("image", 503, PROBLEM | {"retry-after": "3"}, problem(503, "overloaded"), False),
        ("image", 503, PROBLEM, problem(503, "too-costly"), True),
        ("image", 503, PROBLEM, problem(503, "storage-unavailable"), True),
        ("document url", 422, PROBLEM, problem(422, "too-many-pixels"), True),
        ("rendition url", 422, PROBLEM, problem(422, "too-many-pixels"), False),
        ("changed url", 200, {}, b"", True),
        ("api", 200, {}, b'{"at": "hidden"}', True),
    ],
)
def test_response_that_is_wrong_for_its_input_is_a_finding(
    kind: Input, status: int, headers: Mapping[str, str], body: bytes, *, is_finding: bool
) -> None:
    verdict = judge(kind, status, headers, body, is_small=True, secrets=[b"hidden"])
    assert (verdict.reason is not None) == is_finding


@pytest.mark.long
def test_changed_good_images_and_a_killed_worker_are_detected(tmp_path: Path) -> None:
    token = "owner-0123456789abcdef"
    with darkroom(tmp_path, keys=KEY, tokens=token, **SETTINGS) as server:
        client = Client(server, Signer([bytes.fromhex(KEY)]), owner_token=token, token=token, secrets=[])
        canaries, watch = Canaries(client), Watch(server, SLOTS, RENDER_MEMORY_BYTES)
        canaries.record()
        assert [*canaries.check_all(), *watch.check()] == []
        # The server refuses URLs with signatures of another key, so no rendition is as it was.
        other = Client(server, Signer([b"x" * 32]), owner_token=token, token=token, secrets=[])
        canaries._client = other
        assert len(canaries.check_all()) >= len(canaries._images)
        canaries._client = client
        # The supervisor starts another worker, but the fuzzer watches the first one.
        watch.worker.kill()
        watch.worker.wait(PATIENCE_SECONDS)
        assert any("ended" in complaint for complaint in watch.check())
        client.close()
        other.close()
        # A worker that has just been started does not handle SIGTERM yet.
        server.stop(signal.SIGKILL)


@pytest.mark.long
def test_run_of_a_minute_has_no_findings(tmp_path: Path, record_figure: RecordFigure) -> None:
    """As many inputs as a machine with nothing else to do sends in a minute: every run has the same ones."""
    report = run(Plan(11, math.inf, tmp_path / "data", tmp_path / "findings", inputs=INPUTS), print)
    assert report.findings == [], report.text()
    assert report.canaries >= 3
    assert set(report.inputs) == {"image", "url", "api", "wire"}
    record_figure("{:,.0f} inputs without a finding", sum(report.inputs.values()), lowest=True)
    assert report.costliest[0].cpu_seconds <= MAX_CPU_SECONDS
