"""Frames of a WebP animation: composed exactly as libvips' own loader composes them, in memory that does not grow with their number."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.worker.files import open_image
from service.worker.formats import webp, webp_frames

WIDTH, HEIGHT = 40, 30


def animated_webp(frames: Sequence[tuple[bytes, int, int, int, int, int]], *, alpha: bool) -> bytes:
    """Return an animation of frames: a WebP file, left, top, width, height, and flags (RFC 9649 §2.7.1.1)."""
    body = b"ANIM\6\0\0\0\0\0\0\0\0\0"
    for picture, left, top, width, height, flags in frames:
        numbers = (left // 2, top // 2, width - 1, height - 1, 40)
        parts = b"".join(
            kind + len(data).to_bytes(4, "little") + bytes(data) + b"\0" * (len(data) % 2)
            for kind, data in webp.chunks_of(memoryview(picture))
            if kind in {b"ALPH", b"VP8 ", b"VP8L"}
        )
        content = b"".join(number.to_bytes(3, "little") for number in numbers) + bytes([flags]) + parts
        body += b"ANMF" + len(content).to_bytes(4, "little") + content
    size = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X\x0a\0\0\0" + bytes([0x12 if alpha else 2, 0, 0, 0]) + size + body
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def picture(width: int, height: int, kind: str, seed: int, *, lossless: bool) -> bytes:
    """Return a still WebP whose alpha is `opaque`, `binary` or `soft`."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 4), np.uint8)
    pixels[..., 3] = {"opaque": 255, "binary": 255 * (pixels[..., 3] > 127), "soft": pixels[..., 3]}[kind]
    body = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(body, "WEBP", lossless=lossless, exact=True, quality=60)
    return body.getvalue()


frame_strategy = st.tuples(
    st.sampled_from(["opaque", "binary", "soft"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10),
    st.integers(0, 8),
    st.integers(1, 20),
    st.integers(1, 14),
    st.integers(0, 3),
)


@settings(max_examples=40, deadline=None)
@given(frames=st.lists(frame_strategy, min_size=2, max_size=6), alpha=st.booleans())
def test_frames_are_exactly_those_of_libvips(frames: list[tuple[str, bool, bool, int, int, int, int, int]], alpha: bool) -> None:
    made = []
    for seed, (kind, lossless, whole, left, top, width, height, flags) in enumerate(frames):
        area = (0, 0, WIDTH, HEIGHT) if whole else (2 * left, 2 * top, width, height)
        made.append((picture(area[2], area[3], kind, seed, lossless=lossless), *area, flags))
    body = memoryview(animated_webp(made, alpha=alpha))
    strip = open_image(body, n=-1).copy_memory()
    header = open_image(body, n=-1, access="sequential")
    decoded = list(webp_frames.decode(body, header))
    assert len(decoded) == len(frames) == strip.height // HEIGHT
    for number, frame in enumerate(decoded):
        assert (frame.width, frame.height, frame.bands) == (WIDTH, HEIGHT, strip.bands)
        assert np.array_equal(frame.numpy(), strip.crop(0, number * HEIGHT, WIDTH, HEIGHT).numpy()), number
