"""What stands in for an image until it is there: a ThumbHash, a tiny picture inline, its colours."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Sequence

import pyvips

from service.images.info import Placeholder

# ThumbHash looks at no more than 100 × 100 pixels and keeps at most 7 × 7 frequencies: 32 pixels are plenty for those.
_SIDE = 32
_INLINE_SIDE = 16
_INLINE_BYTES = 400
_INLINE_QUALITIES = (40, 25, 10, 1)
_PALETTE_COLOURS = 5
_OPAQUE = 128


def size(width: int, height: int) -> tuple[int, int]:
    """Return the size of the small picture that a placeholder is made from: at most 32 × 32, the aspect ratio kept."""
    scale = _SIDE / max(width, height)
    return (max(1, min(width, round(width * scale))), max(1, min(height, round(height * scale))))


def make(image: pyvips.Image) -> Placeholder:
    """Return the placeholder of a small picture (at most 32 × 32, sRGB or grey, 8 bits, alpha or not)."""
    rgba = image.colourspace("srgb") if image.bands <= 2 else image
    rgba = (rgba if rgba.hasalpha() else rgba.addalpha()).copy_memory()
    pixels = bytes(rgba.write_to_memory())
    palette = _palette(pixels)
    return Placeholder(
        thumbhash=base64.b64encode(thumbhash(rgba.width, rgba.height, pixels)).decode("ascii"),
        data_url=_inline(rgba),
        color=palette[0],
        palette=palette,
    )


def thumbhash(width: int, height: int, rgba: bytes) -> bytes:
    """Return the ThumbHash (https://evanw.github.io/thumbhash/) of `width` × `height` RGBA pixels, at most 100 × 100.

    A cosine transform of luminance (L), yellow-blue (P), red-green (Q) and alpha (A), its low frequencies in 4 bits each.
    """
    count = width * height
    alphas = [rgba[index * 4 + 3] / 255 for index in range(count)]
    covered = sum(alphas)
    transparent = covered < count
    means = [sum(alphas[index] * rgba[index * 4 + band] / 255 for index in range(count)) / covered if covered else 0.0 for band in range(3)]
    # Transparent pixels take the mean colour, so that they ring in no frequency but alpha's.
    red, green, blue = (
        [means[band] * (1 - alpha) + alpha * rgba[index * 4 + band] / 255 for index, alpha in enumerate(alphas)] for band in range(3)
    )
    most = 5 if transparent else 7
    across, down = (max(1, _nearest(most * side / max(width, height))) for side in (width, height))
    planes = (
        ([(r + g + b) / 3 for r, g, b in zip(red, green, blue, strict=True)], max(3, across), max(3, down)),
        ([(r + g) / 2 - b for r, g, b in zip(red, green, blue, strict=True)], 3, 3),
        ([r - g for r, g in zip(red, green, strict=True)], 3, 3),
        (alphas, 5, 5),
    )
    (l_mean, l_waves, l_scale), (p_mean, p_waves, p_scale), (q_mean, q_waves, q_scale), (a_mean, a_waves, a_scale) = (
        _cosines(plane, width, height, columns, rows) for plane, columns, rows in planes
    )
    landscape = width > height
    header = (
        _nearest(63 * l_mean)
        | _nearest(31.5 + 31.5 * p_mean) << 6
        | _nearest(31.5 + 31.5 * q_mean) << 12
        | _nearest(31 * l_scale) << 18
        | int(transparent) << 23
    )
    shape = (down if landscape else across) | _nearest(63 * p_scale) << 3 | _nearest(63 * q_scale) << 9 | int(landscape) << 15
    out = bytearray(header.to_bytes(3, "little") + shape.to_bytes(2, "little"))
    waves = [*l_waves, *p_waves, *q_waves]
    if transparent:
        out.append(_nearest(15 * a_mean) | _nearest(15 * a_scale) << 4)
        waves += a_waves
    nibbles = [_nearest(15 * wave) for wave in waves]
    nibbles += [0] * (len(nibbles) % 2)
    out += bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    return bytes(out)


def _cosines(plane: Sequence[float], width: int, height: int, columns: int, rows: int) -> tuple[float, list[float], float]:
    """Return the mean, the low frequencies scaled to 0..1, and the scale that was taken out (0 for a flat plane)."""
    across = [[math.cos(math.pi / width * column * (x + 0.5)) for x in range(width)] for column in range(columns)]
    lines = [plane[y * width : (y + 1) * width] for y in range(height)]
    # The transform is separable: each line first, then the columns of what that gave.
    by_line = [[sum(map(float.__mul__, line, wave)) for line in lines] for wave in across]
    mean = 0.0
    waves: list[float] = []
    for row in range(rows):
        wave_down = [math.cos(math.pi / height * row * (y + 0.5)) for y in range(height)]
        for column in range(columns):
            # A triangle of frequencies: the finest across and the finest down are never both kept.
            if column * rows >= columns * (rows - row):
                break
            strength = sum(map(float.__mul__, by_line[column], wave_down)) / (width * height)
            if row or column:
                waves.append(strength)
            else:
                mean = strength
    scale = max(map(abs, waves), default=0.0)
    return mean, [0.5 + 0.5 / scale * wave for wave in waves] if scale else waves, scale


def _nearest(value: float) -> int:
    return math.floor(value + 0.5)


def _inline(image: pyvips.Image) -> str:
    """Return the picture as a `data:` URL of at most 400 bytes."""
    side = _INLINE_SIDE
    while True:
        small = image.thumbnail_image(side, height=side, size="down")
        for quality in _INLINE_QUALITIES:
            body = bytes(small.webpsave_buffer(Q=quality, effort=4, alpha_q=20, keep="none"))
            url = "data:image/webp;base64," + base64.b64encode(body).decode("ascii")
            if len(url) <= _INLINE_BYTES:
                return url
        side //= 2


def _palette(rgba: bytes) -> list[str]:
    """Return up to five colours as `#rrggbb`, the most frequent first: means of the fullest cells of an 8 × 8 × 8 colour cube."""
    opaque = [rgba[at : at + 3] for at in range(0, len(rgba), 4) if rgba[at + 3] >= _OPAQUE] or [b"\xff\xff\xff"]
    cells = Counter((red >> 5, green >> 5, blue >> 5) for red, green, blue in opaque)
    palette = []
    for cell, count in cells.most_common(_PALETTE_COLOURS):
        inside = [pixel for pixel in opaque if tuple(band >> 5 for band in pixel) == cell]
        palette.append("#" + "".join(f"{round(sum(pixel[band] for pixel in inside) / count):02x}" for band in range(3)))
    return palette
