"""A generated picture for screenshots that looks like a photo: ranges of hills in front of an evening sky, and a lake."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = npt.NDArray[np.float64]

_TOP, _HORIZON = np.array([38.0, 62.0, 116.0]), np.array([255.0, 196.0, 140.0])
_NEAR, _FAR = np.array([18.0, 30.0, 34.0]), np.array([186.0, 140.0, 138.0])
_SUN = np.array([255.0, 236.0, 190.0])


def evening_lake(width: int = 3600, height: int = 2400) -> bytes:
    """Return the picture as a JPEG, which is always the same with the same version of Pillow."""
    random = np.random.default_rng(7)
    shore = int(height * 0.68)
    x, y = np.arange(width) / width, np.linspace(0, 1, shore)[:, None]
    picture = _sky(random, x, y, width, shore)
    ranges = 6
    for index in range(ranges):
        nearness = index / (ranges - 1)
        ridge = 0.40 + 0.42 * nearness + (0.26 - 0.15 * nearness) * (_noise_line(random, width, 3 + index * 2) - 0.55)
        covered = np.clip((y - ridge[None, :]) * shore / 2, 0, 1)[..., None]
        mist = np.clip((y - ridge[None, :]) * (2.4 - nearness), 0, 0.75)[..., None]
        hill = _FAR + (_NEAR - _FAR) * nearness**0.8
        grain = 1 + 0.16 * nearness * (_noise_plane(random, shore, width, 5 + index) - 0.5)[..., None]
        picture = picture * (1 - covered) + covered * (hill * grain + (_HORIZON * 0.82 - hill) * mist * (1 - nearness) ** 1.2)
    picture = np.concatenate([picture, _lake(random, picture, width, height - shore)])
    picture += random.normal(0, 2.2, picture.shape)
    body = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(body, "JPEG", quality=93)
    return body.getvalue()


def _sky(random: np.random.Generator, x: Field, y: Field, width: int, height: int) -> Field:
    sky: Field = _TOP + (_HORIZON - _TOP) * np.clip(y * 1.5, 0, 1)[..., None] ** 1.4 * np.ones((1, width, 1))
    cloud = np.clip(_noise_plane(random, height, width, 3, stretch=5) * 2.4 - 1.25, 0, 1) * np.clip(1 - y * 1.1, 0, 1)
    sky += cloud[..., None] * (np.array([255.0, 214.0, 190.0]) - sky) * 0.6
    distance = np.hypot((x[None, :] - 0.64) * width / height, y - 0.47)
    sky += np.exp(-distance * 5.5)[..., None] * (_SUN - sky) * 0.85
    sky += np.clip((0.042 - distance) * 300, 0, 1)[..., None] * (_SUN * 1.05 - sky)
    return sky


def _lake(random: np.random.Generator, land: Field, width: int, height: int) -> Field:
    depth = np.linspace(0, 1, height)[:, None]
    ripple = (_noise_plane(random, height, width, 24, stretch=14) - 0.5) * (14 + 90 * depth)
    rows = np.clip(land.shape[0] - 1 - np.arange(height)[:, None] * 1.25 - np.abs(ripple), 0, land.shape[0] - 1).astype(int)
    mirrored: Field = land[rows, np.clip(np.arange(width)[None, :] + ripple, 0, width - 1).astype(int)]
    mirrored *= (0.86 - 0.34 * depth)[..., None]
    mirrored += (np.clip(ripple / 60, 0, 1) * 46)[..., None] * np.array([1.0, 0.86, 0.72])
    return mirrored


def _noise_line(random: np.random.Generator, width: int, cells: int) -> Field:
    """Return fractal noise between about 0 and 1 along a line."""
    total: Field = np.zeros(width)
    for octave in range(8):
        points = random.random(cells * 2**octave + 2)
        at = np.linspace(0, len(points) - 1.001, width)
        total += np.interp(at, np.arange(len(points)), points) / 2**octave
    return total / 2


def _noise_plane(random: np.random.Generator, height: int, width: int, cells: int, stretch: int = 1) -> Field:
    """Return fractal noise between about 0 and 1 over a plane, whose shapes are `stretch` times wider than high."""
    total: Field = np.zeros((height, width))
    for octave in range(6):
        down = cells * 2**octave + 2
        small = Image.fromarray((random.random((down, max(3, down * width // height // stretch))) * 255).astype(np.uint8))
        total += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64) / 255 / 2**octave
    return total / 2
