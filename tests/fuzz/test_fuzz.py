"""The fuzzer itself: its inputs can be made again, its mutations get past checksums, it sees what is wrong; and a minute of it."""

from __future__ import annotations

import functools
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
from tests.fuzz.declared import UNKNOWN, pixels
from tests.fuzz.judge import Input, judge
from tests.fuzz.report import input_bytes
from tests.fuzz.seeds import DRAWING, Kind, seeds
from tests.fuzz.structures import changed_profile, mutators, name_of
from tests.fuzz.watch import Watch
from tests.support.images import p3_profile
from tests.support.server import darkroom

KEY = "7f" * 32
DIGEST = "a" * 32

# Made once: it takes a second.
good_seeds = functools.cache(seeds)


def cases(seed: int) -> Cases:
    return Cases(seed, good_seeds(), [DIGEST], Signer([bytes.fromhex(KEY)]), b"token")


def test_inputs_of_one_seed_and_number_are_the_same_each_time_and_of_another_seed_are_not() -> None:
    ours = [cases(1).make(number) for number in range(1, 200)]
    assert ours == [cases(1).make(number) for number in range(1, 200)]
    assert len({input_bytes(case) for case in ours} & {input_bytes(cases(2).make(number)) for number in range(1, 200)}) < 20


def test_file_taken_apart_and_joined_is_the_same_file() -> None:
    for seed in good_seeds():
        if seed.kind in CONTAINERS and seed.name.startswith("generated"):
            container = CONTAINERS[seed.kind]
            assert container.join(container.split(seed.body)) == seed.body, seed.name


def test_seed_of_a_format_that_declares_its_size_declares_a_small_one() -> None:
    for seed in good_seeds():
        if seed.name.startswith("generated"):
            found = pixels(seed.kind, seed.body)
            assert found == UNKNOWN if seed.kind == "svg" else 0 < found < 1_000_000, seed.name


def test_mutated_parts_of_a_png_have_right_checksums() -> None:
    body = next(seed.body for seed in good_seeds() if seed.kind == "png")
    change_part = next(mutator for mutator in mutators("png") if name_of(mutator) == "change_part")
    for number in range(200):
        chance = Random(number)
        out, at = change_part(body, chance, [body]), 8
        for part in png_parts(out):
            at += 8 + len(part)
            assert out[at - 4 : at] == zlib.crc32(part).to_bytes(4, "big")


def test_changed_profile_has_its_length_and_soon_a_name_of_a_type_that_is_not_utf8() -> None:
    changed = [changed_profile(p3_profile(), Random(number)) for number in range(400)]
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
def test_mutation_of_whatever_bytes_gives_bytes(body: bytes, kind: Kind, number: int) -> None:
    chance = Random(number)
    for mutator in mutators(kind):
        out = mutator(body, chance, [body, DRAWING])
        assert isinstance(out, bytes)
        assert pixels(kind, out) >= 0


PROBLEM = {"content-type": "application/problem+json"}


def problem(status: int, kind: str) -> bytes:
    return msgspec.json.encode({"type": f"/problems/{kind}", "title": "T", "status": status, "detail": "D."})


@pytest.mark.parametrize(
    ("kind", "status", "headers", "body", "is_found"),
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
        ("address", 422, PROBLEM, problem(422, "too-many-pixels"), False),
        ("changed address", 200, {}, b"", True),
        ("api", 200, {}, b'{"at": "hidden"}', True),
    ],
)
def test_response_is_a_finding_or_not(kind: Input, status: int, headers: Mapping[str, str], body: bytes, *, is_found: bool) -> None:
    verdict = judge(kind, status, headers, body, is_small=True, secrets=[b"hidden"])
    assert (verdict.reason is not None) == is_found


@pytest.mark.long
def test_good_images_that_change_and_processes_that_are_gone_are_found(tmp_path: Path) -> None:
    token = "owner-0123456789abcdef"
    with darkroom(tmp_path, keys=KEY, tokens=token, **SETTINGS) as server:
        client = Client(server, Signer([bytes.fromhex(KEY)]), owner_token=token, token=token, secrets=[])
        canaries, watch = Canaries(client), Watch(server, SLOTS, RENDER_MEMORY_BYTES)
        canaries.record()
        assert [*canaries.round(), *watch.look()] == []
        # Another key signs other addresses: no document is as it was, and none of the renditions is given.
        other = Client(server, Signer([b"x" * 32]), owner_token=token, token=token, secrets=[])
        canaries._client = other
        assert len(canaries.round()) >= len(canaries._images)
        canaries._client = client
        # Its supervisor starts another worker, which is not the one that there was.
        watch.worker.kill()
        watch.worker.wait(20)
        assert any("ended" in complaint for complaint in watch.look())
        client.close()
        other.close()
        # A worker that has only just been started does not hear SIGTERM yet.
        server.stop(signal.SIGKILL)


@pytest.mark.long
def test_fuzzer_of_the_whole_way_finds_nothing_in_a_minute(tmp_path: Path) -> None:
    report = run(Plan(11, 60, tmp_path / "data", tmp_path / "findings"), print)
    assert report.findings == [], report.text()
    assert report.canaries >= 3
    assert set(report.inputs) == {"image", "address", "api", "wire"}
    assert report.costliest[0].cpu_seconds <= MAX_CPU_SECONDS
