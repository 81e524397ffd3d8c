"""Mutations of bytes that know nothing of the format: bits, numbers, blocks. All randomness comes from the generator that is passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

# A function of the bytes, the random generator, and other files of the same format, which returns the mutated bytes.
Mutator: TypeAlias = Callable[[bytes, Random, Sequence[bytes]], bytes]

# Numbers at which arithmetic often goes wrong: around zero, around powers of two, around the limits of signed and unsigned fields.
NUMBERS = tuple(
    sorted(
        {0, 3, 5, 7, 17, 100, 1_000, 10_000, 12_345, 16_383, 16_384, 60_000, 100_000, 1_000_000}
        | {(1 << power) + step for power in (0, 1, 2, 3, 4, 7, 8, 15, 16, 24, 31, 32, 63, 64) for step in (-1, 0, 1)}
    )
)
BYTES = (0, 1, 2, 3, 4, 8, 10, 13, 16, 32, 34, 38, 39, 60, 62, 63, 64, 92, 126, 127, 128, 129, 192, 200, 240, 254, 255)

# The beginning of a file holds most of its structures, so mutations prefer it.
_HEAD_BYTES = 600
_MAX_BYTES = 1 << 20


def flip_bits(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with one to 16 bits flipped."""
    out = bytearray(body)
    for _change in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if out:
            out[_random_position(rng, len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def set_bytes(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with one to eight of them set to values that often have a meaning for codecs."""
    out = bytearray(body)
    for _change in range(rng.choice((1, 1, 2, 4, 8))):
        if out:
            out[_random_position(rng, len(out))] = rng.choice(BYTES) if rng.random() < 0.6 else rng.randrange(256)
    return bytes(out)


def set_number(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with a number of 1, 2, 4 or 8 bytes, in either byte order, replaced or slightly changed."""
    size = rng.choice((1, 2, 2, 4, 4, 8))
    if len(body) < size:
        return body
    at = _random_position(rng, len(body) - size + 1)
    if rng.random() < 0.5:
        at -= at % min(size, 4)
    return set_number_at(body, rng, at, size, rng.choice(("big", "little")))


def set_number_at(body: bytes, rng: Random, at: int, size: int, order: str) -> bytes:
    """Return the bytes with the number of `size` bytes at `at` changed; `order` is `big` or `little`."""
    little = order == "little"
    now = int.from_bytes(body[at : at + size], "little" if little else "big")
    changed = rng.choice((now + 1, now - 1, now * 2, now // 2, -now, now ^ 0x80, rng.getrandbits(8 * size)))
    number = (rng.choice(NUMBERS) if rng.random() < 0.6 else changed) % (1 << (8 * size))
    return body[:at] + number.to_bytes(size, "little" if little else "big") + body[at + size :]


def truncate(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return the beginning of the bytes."""
    return body[: rng.randrange(len(body) + 1)] if rng.random() < 0.5 else body[: -rng.randrange(1, 32)]


def remove_block(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes without one block."""
    start, end = _random_block(body, rng)
    return body[:start] + body[end:]


def repeat_block(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with one block repeated."""
    start, end = _random_block(body, rng)
    return (body[:end] + body[start:end] * rng.choice((1, 1, 2, 16, 200)) + body[end:])[:_MAX_BYTES]


def swap_blocks(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with two blocks of the same length exchanged."""
    start, end = _random_block(body, rng)
    to = _random_position(rng, max(1, len(body) - (end - start)))
    one, other = body[start:end], body[to : to + end - start]
    out = bytearray(body)
    out[to : to + len(one)] = one
    out[start : start + len(other)] = other
    return bytes(out)


def splice(body: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Return the bytes with a block of another file that overwrites some of them or is inserted, or with that file's end as their end."""
    other = rng.choice(others) if others else body
    start, end = _random_block(other, rng)
    at = _random_position(rng, len(body) + 1)
    match rng.randrange(3):
        case 0:
            return body[:at] + other[start:end] + body[at + end - start :]
        case 1:
            return body[:at] + other[start:end] + body[at:]
        case _:
            return body[:at] + other[min(at, len(other)) :]


def fill_block(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with one block filled with a single value or with noise."""
    start, end = _random_block(body, rng)
    noise = rng.randbytes(end - start) if rng.random() < 0.5 else bytes([rng.choice(BYTES)]) * (end - start)
    return body[:start] + noise + body[end:]


ANY: tuple[Mutator, ...] = (
    flip_bits,
    set_bytes,
    set_bytes,
    set_number,
    set_number,
    set_number,
    truncate,
    remove_block,
    repeat_block,
    swap_blocks,
    splice,
    fill_block,
)


def _random_position(rng: Random, length: int) -> int:
    return rng.randrange(min(length, _HEAD_BYTES) if rng.random() < 0.5 else length)


def _random_block(body: bytes, rng: Random) -> tuple[int, int]:
    start = _random_position(rng, len(body) + 1)
    return start, min(len(body), start + rng.choice((1, 2, 4, 8, 12, 16, 64, 256, 1_024, 8_192)))
