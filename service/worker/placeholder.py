"""Placeholders, which are shown until an image has loaded: a ThumbHash, a tiny inline picture, and the image's main colors."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Sequence

import pyvips

from service.images.info import Placeholder

# ThumbHash accepts at most 100 × 100 pixels and stores at most 7 × 7 frequencies, for which 32 pixels are plenty.
_MAX_SIDE = 32
_INLINE_MAX_SIDE = 16
_INLINE_MAX_BYTES = 400
_INLINE_QUALITIES = (40, 25, 10, 1)
_PALETTE_COLORS = 5
# Pixels with less alpha than this do not count for the palette.
_MIN_PALETTE_ALPHA = 128


def size(width: int, height: int) -> tuple[int, int]:
    """Return the size of the small picture that a placeholder is made from: at most 32 × 32, with the original's aspect ratio."""
    scale = _MAX_SIDE / max(width, height)
    return (max(1, min(width, round(width * scale))), max(1, min(height, round(height * scale))))


def make(image: pyvips.Image) -> Placeholder:
    """Return the placeholder of a small picture (at most 32 × 32, sRGB or gray, 8 bits per band, with or without alpha)."""
    rgba = image.colourspace("srgb") if image.bands <= 2 else image
    rgba = (rgba if rgba.hasalpha() else rgba.addalpha()).copy_memory()
    pixels = bytes(rgba.write_to_memory())
    palette = _palette(pixels)
    return Placeholder(
        thumbhash=base64.b64encode(thumbhash(rgba.width, rgba.height, pixels)).decode("ascii"),
        data_url=_data_url(rgba),
        color=palette[0],
        palette=palette,
    )


def thumbhash(width: int, height: int, rgba: bytes) -> bytes:
    """Return the ThumbHash (https://evanw.github.io/thumbhash/) of a picture of at most 100 × 100 pixels.

    It holds the low frequencies of a cosine transform of luminance (L), yellow-blue (P), red-green (Q) and alpha (A), 4 bits each.

    rgba: `width` × `height` pixels of 4 bytes.
    """
    count = width * height
    alphas = [rgba[index * 4 + 3] / 255 for index in range(count)]
    total_alpha = sum(alphas)
    has_alpha = total_alpha < count
    means = [
        sum(alphas[index] * rgba[index * 4 + band] / 255 for index in range(count)) / total_alpha if total_alpha else 0.0
        for band in range(3)
    ]
    # Transparent pixels take the mean color, so that their own has no effect on any frequency.
    red, green, blue = (
        [means[band] * (1 - alpha) + alpha * rgba[index * 4 + band] / 255 for index, alpha in enumerate(alphas)] for band in range(3)
    )
    max_frequencies = 5 if has_alpha else 7
    columns, rows = (max(1, _round(max_frequencies * side / max(width, height))) for side in (width, height))
    planes = (
        ([(r + g + b) / 3 for r, g, b in zip(red, green, blue, strict=True)], max(3, columns), max(3, rows)),
        ([(r + g) / 2 - b for r, g, b in zip(red, green, blue, strict=True)], 3, 3),
        ([r - g for r, g in zip(red, green, strict=True)], 3, 3),
        (alphas, 5, 5),
    )
    (l_mean, l_waves, l_scale), (p_mean, p_waves, p_scale), (q_mean, q_waves, q_scale), (a_mean, a_waves, a_scale) = (
        _cosine_transform(plane, width, height, plane_columns, plane_rows) for plane, plane_columns, plane_rows in planes
    )
    landscape = width > height
    header = (
        _round(63 * l_mean)
        | _round(31.5 + 31.5 * p_mean) << 6
        | _round(31.5 + 31.5 * q_mean) << 12
        | _round(31 * l_scale) << 18
        | int(has_alpha) << 23
    )
    shape = (rows if landscape else columns) | _round(63 * p_scale) << 3 | _round(63 * q_scale) << 9 | int(landscape) << 15
    out = bytearray(header.to_bytes(3, "little") + shape.to_bytes(2, "little"))
    waves = [*l_waves, *p_waves, *q_waves]
    if has_alpha:
        out.append(_round(15 * a_mean) | _round(15 * a_scale) << 4)
        waves += a_waves
    nibbles = [_round(15 * wave) for wave in waves]
    nibbles += [0] * (len(nibbles) % 2)
    out += bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    return bytes(out)


def _cosine_transform(plane: Sequence[float], width: int, height: int, columns: int, rows: int) -> tuple[float, list[float], float]:
    """Return the mean of a plane, its other low frequencies scaled to 0..1, and their scale (0 for a flat plane)."""
    column_waves = [[math.cos(math.pi / width * column * (x + 0.5)) for x in range(width)] for column in range(columns)]
    lines = [plane[y * width : (y + 1) * width] for y in range(height)]
    # The transform is separable: lines first, then the columns of the result.
    line_strengths = [[sum(map(float.__mul__, line, wave)) for line in lines] for wave in column_waves]
    mean = 0.0
    waves: list[float] = []
    for row in range(rows):
        row_wave = [math.cos(math.pi / height * row * (y + 0.5)) for y in range(height)]
        for column in range(columns):
            # ThumbHash stores a triangle of frequencies: those that are high in both directions are left out.
            if column * rows >= columns * (rows - row):
                break
            strength = sum(map(float.__mul__, line_strengths[column], row_wave)) / (width * height)
            if row or column:
                waves.append(strength)
            else:
                mean = strength
    scale = max(map(abs, waves), default=0.0)
    return mean, [0.5 + 0.5 / scale * wave for wave in waves] if scale else waves, scale


def _round(value: float) -> int:
    """Return the nearest integer, rounding half up as JavaScript's `Math.round`, which ThumbHash is defined with."""
    return math.floor(value + 0.5)


def _data_url(image: pyvips.Image) -> str:
    """Return the picture as a `data:` URL of at most 400 bytes."""
    side = _INLINE_MAX_SIDE
    while True:
        small = image.thumbnail_image(side, height=side, size="down")
        for quality in _INLINE_QUALITIES:
            body = bytes(small.webpsave_buffer(Q=quality, effort=4, alpha_q=20, keep="none"))
            url = "data:image/webp;base64," + base64.b64encode(body).decode("ascii")
            if len(url) <= _INLINE_MAX_BYTES:
                return url
        side //= 2


def _palette(rgba: bytes) -> list[str]:
    """Return up to five colors as `#rrggbb`, the most frequent first: the means of the fullest cells of an 8 × 8 × 8 color cube."""
    starts = range(0, len(rgba), 4)
    opaque = [rgba[start : start + 3] for start in starts if rgba[start + 3] >= _MIN_PALETTE_ALPHA] or [b"\xff\xff\xff"]
    cells = Counter((red >> 5, green >> 5, blue >> 5) for red, green, blue in opaque)
    palette = []
    for cell, count in cells.most_common(_PALETTE_COLORS):
        inside = [pixel for pixel in opaque if tuple(band >> 5 for band in pixel) == cell]
        palette.append("#" + "".join(f"{round(sum(pixel[band] for pixel in inside) / count):02x}" for band in range(3)))
    return palette
