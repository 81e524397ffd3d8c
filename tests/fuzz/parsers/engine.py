"""Runs one target under atheris: `python -m tests.fuzz.parsers.engine TARGET CORPUS FINDINGS LIMIT AMOUNT SEED`.

LIMIT is `seconds` or `runs`, and AMOUNT how many seconds the run takes, or how many inputs it has.

Another process reads its output: libFuzzer ends this one at the first finding.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["service", "edge"]):
    from tests.fuzz.parsers.target import MAX_INPUT_BYTES
    from tests.fuzz.parsers.targets import TARGETS

# No input may take longer than this by the clock, whatever the machine has to do besides.
_TIMEOUT_SECONDS = 60
_MAX_RESIDENT_MIB = 2_048

# The option of libFuzzer for each limit.
_LIMITS = {"seconds": "max_total_time", "runs": "runs"}


def main() -> None:
    """Run, and do not return."""
    name, corpus, findings, limit, amount, seed = sys.argv[1:]
    target = TARGETS[name]
    good = list(target.seeds())
    for number, body in enumerate(good):
        (Path(corpus) / f"seed-{number}").write_bytes(body)

    def mutate(data: bytes, max_size: int, mutation_seed: int) -> bytes:
        rng = Random(mutation_seed)
        changed = atheris.Mutate(data, max_size) if rng.random() < 0.5 else target.mutate(data, rng, good)
        return bytes(changed[:max_size])

    options = {
        "max_len": MAX_INPUT_BYTES,
        _LIMITS[limit]: amount,
        "seed": seed,
        # No other process adds to the corpus, and reading it again, which libFuzzer does by the clock, would make runs differ.
        "reload": 0,
        "timeout": _TIMEOUT_SECONDS,
        "rss_limit_mb": _MAX_RESIDENT_MIB,
        "artifact_prefix": f"{findings}/{name}-",
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), corpus]
    atheris.Setup(arguments, target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
