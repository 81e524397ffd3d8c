"""The fuzz targets of the parsers: a replay of seeds, mutations and inputs that once failed; and a short run under atheris."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.parsers.drawings import check_harmless
from tests.fuzz.parsers.found import INPUTS
from tests.fuzz.parsers.structured import NotADictionaryError, dictionary
from tests.fuzz.parsers.target import OverBudgetError, Target
from tests.fuzz.parsers.targets import TARGETS

_MUTATIONS = 25
_RUNS = 1_500
_LONG_RUN = ("source_url", "transform", "policy", "avif", "tiff", "xmp", "svg", "svg_rules")


@pytest.mark.parametrize("name", TARGETS)
def test_parser_meets_its_conditions_for_seeds_and_mutations_of_them(name: str) -> None:
    target, rng = TARGETS[name], Random(name)
    seeds = target.seeds()
    assert seeds
    for body in [*seeds, *(target.mutate(rng.choice(seeds), rng, seeds) for _ in range(_MUTATIONS))]:
        target.run(body)


@pytest.mark.parametrize(("name", "make"), [(name, make) for name, inputs in INPUTS.items() for make in inputs])
def test_input_that_once_failed_meets_the_conditions(name: str, make: Callable[[], bytes]) -> None:
    TARGETS[name].run(make())


def test_input_that_takes_too_long_is_a_finding() -> None:
    with pytest.raises(OverBudgetError, match="s of CPU for 3 bytes"):
        Target(lambda _: _spend_more_than_a_second(), lambda: [b""]).run(b"abc")


def _spend_more_than_a_second() -> None:
    started = time.thread_time()
    while time.thread_time() < started + 1.1:
        pass


@pytest.mark.parametrize(
    "inside",
    [
        "<script/>",
        '<rect onclick="a()"/>',
        '<use href="https://a.example/#b"/>',
        '<image href="data:image/svg+xml,a"/>',
        '<rect fill="url(https://a.example/#b)"/>',
        '<rect style="fill:url(&quot;//a.example&quot;)"/>',
        "<foreignObject/>",
        "<!-- a -->",
        '<x xmlns="http://www.w3.org/1999/xhtml"/>',
    ],
)
def test_drawing_with_active_content_is_not_harmless(inside: str) -> None:
    with pytest.raises(AssertionError):
        check_harmless(f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>'.encode())


@pytest.mark.parametrize(
    "text", ["a=1,", "a=", "A=1", "a=1.", "a=1.2345", "a=?2", 'a="b', "a=(1 2)", "a=@1", "a b", "a=1;", "a=:?:", ",a", "a=-"]
)
def test_text_that_is_no_dictionary_is_none_for_the_reference_either(text: str) -> None:
    with pytest.raises(NotADictionaryError):
        dictionary(text)


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed: it has no wheel for this platform")
def test_fuzzing_under_atheris_finds_nothing(tmp_path: Path) -> None:
    """Every run has the same inputs, so that it says the same about the same code; `make fuzz-parsers` looks for further ones."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.parsers",
        "--runs",
        str(_RUNS),
        "--seed",
        "1",
        "--findings",
        str(tmp_path),
        "--target",
        *_LONG_RUN,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(rf" {_RUNS:,} inputs .* ok$", done.stdout, re.MULTILINE)) == len(_LONG_RUN), done.stdout
