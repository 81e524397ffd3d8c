"""Mutations of bytes, whatever they mean: bits, numbers, blocks. All are deterministic: the chance that is given decides everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

# Takes the bytes, the chance, and other files of the same format; returns other bytes.
Mutator: TypeAlias = Callable[[bytes, Random, Sequence[bytes]], bytes]

# Where arithmetic goes wrong: around zero, around powers of two, around what signed and unsigned fields hold.
NUMBERS = tuple(
    sorted(
        {0, 3, 5, 7, 17, 100, 1_000, 10_000, 12_345, 16_383, 16_384, 60_000, 100_000, 1_000_000}
        | {(1 << power) + step for power in (0, 1, 2, 3, 4, 7, 8, 15, 16, 24, 31, 32, 63, 64) for step in (-1, 0, 1)}
    )
)
BYTES = (0, 1, 2, 3, 4, 8, 10, 13, 16, 32, 34, 38, 39, 60, 62, 63, 64, 92, 126, 127, 128, 129, 192, 200, 240, 254, 255)

# Most structures stand at the beginning.
_HEAD_BYTES = 600
_MAX_BYTES = 1 << 20


def flip_bits(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with one to 16 bits flipped."""
    out = bytearray(body)
    for _change in range(chance.choice((1, 1, 1, 2, 4, 16))):
        if out:
            out[_place(chance, len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def set_bytes(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with one to eight of them set to values of which codecs are fond."""
    out = bytearray(body)
    for _change in range(chance.choice((1, 1, 2, 4, 8))):
        if out:
            out[_place(chance, len(out))] = chance.choice(BYTES) if chance.random() < 0.6 else chance.randrange(256)
    return bytes(out)


def set_number(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with a number of 1, 2, 4 or 8 bytes, in either order, set to another or changed by a little."""
    size = chance.choice((1, 2, 2, 4, 4, 8))
    if len(body) < size:
        return body
    at = _place(chance, len(body) - size + 1)
    if chance.random() < 0.5:
        at -= at % min(size, 4)
    return with_number(body, chance, at, size, chance.choice(("big", "little")))


def with_number(body: bytes, chance: Random, at: int, size: int, order: str) -> bytes:
    """Return the bytes with the number of `size` bytes at `at` changed; `order` is `big` or `little`."""
    little = order == "little"
    now = int.from_bytes(body[at : at + size], "little" if little else "big")
    changed = chance.choice((now + 1, now - 1, now * 2, now // 2, -now, now ^ 0x80, chance.getrandbits(8 * size)))
    number = (chance.choice(NUMBERS) if chance.random() < 0.6 else changed) % (1 << (8 * size))
    return body[:at] + number.to_bytes(size, "little" if little else "big") + body[at + size :]


def truncate(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return the beginning of the bytes."""
    return body[: chance.randrange(len(body) + 1)] if chance.random() < 0.5 else body[: -chance.randrange(1, 32)]


def remove_block(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes without a stretch of them."""
    start, end = _block(body, chance)
    return body[:start] + body[end:]


def repeat_block(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with a stretch of them there several times."""
    start, end = _block(body, chance)
    return (body[:end] + body[start:end] * chance.choice((1, 1, 2, 16, 200)) + body[end:])[:_MAX_BYTES]


def swap_blocks(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with two stretches of one length exchanged."""
    start, end = _block(body, chance)
    to = _place(chance, max(1, len(body) - (end - start)))
    one, other = body[start:end], body[to : to + end - start]
    out = bytearray(body)
    out[to : to + len(one)] = one
    out[start : start + len(other)] = other
    return bytes(out)


def splice(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """Return the bytes with a stretch of another file over or between them, or that file's end after their beginning."""
    other = chance.choice(others) if others else body
    start, end = _block(other, chance)
    at = _place(chance, len(body) + 1)
    match chance.randrange(3):
        case 0:
            return body[:at] + other[start:end] + body[at + end - start :]
        case 1:
            return body[:at] + other[start:end] + body[at:]
        case _:
            return body[:at] + other[min(at, len(other)) :]


def fill_block(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return the bytes with a stretch of them of one value, or of noise."""
    start, end = _block(body, chance)
    noise = chance.randbytes(end - start) if chance.random() < 0.5 else bytes([chance.choice(BYTES)]) * (end - start)
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


def _place(chance: Random, length: int) -> int:
    return chance.randrange(min(length, _HEAD_BYTES) if chance.random() < 0.5 else length)


def _block(body: bytes, chance: Random) -> tuple[int, int]:
    start = _place(chance, len(body) + 1)
    return start, min(len(body), start + chance.choice((1, 2, 4, 8, 12, 16, 64, 256, 1_024, 8_192)))
