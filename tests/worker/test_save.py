"""Encoder settings: fixed for each pipeline version, so that an old URL gives the same bytes forever."""

from __future__ import annotations

import pytest

from service.images.formats import Format
from service.images.transform import DEFAULTS, PIPELINE_VERSION
from service.worker.save import EncodeOptions, encode
from tests.quality.pictures import for_service
from tests.support import images

PICTURE = for_service(images.picture(160, 120))

# The methods of libvips and their arguments, which follow from no other code: they never change once a version is released.
OLD: dict[tuple[Format, int | None], tuple[str, dict[str, object]]] = {
    ("avif", None): ("heifsave_buffer", {"compression": "av1", "Q": 61, "effort": 2}),
    ("avif", 1): ("heifsave_buffer", {"compression": "av1", "Q": 61, "effort": 1}),
    ("webp", None): ("webpsave_buffer", {"Q": 61, "effort": 2}),
    ("webp", 4): ("webpsave_buffer", {"Q": 61, "effort": 4}),
    ("jpeg", None): ("jpegsave_buffer", {"Q": 61, "optimize_coding": True, "quant_table": 3}),
    ("jpeg", 3): (
        "jpegsave_buffer",
        {"Q": 61, "optimize_coding": True, "quant_table": 3, "interlace": True, "optimize_scans": True},
    ),
    ("jpeg", 4): (
        "jpegsave_buffer",
        {
            "Q": 61,
            "optimize_coding": True,
            "quant_table": 5,
            "interlace": True,
            "optimize_scans": True,
            "trellis_quant": True,
            "overshoot_deringing": True,
        },
    ),
}
NEW: dict[tuple[Format, int | None], tuple[str, dict[str, object]]] = {
    ("avif", None): ("heifsave_buffer", {"compression": "av1", "Q": 61, "effort": 0, "bitdepth": 10}),
    ("avif", 1): ("heifsave_buffer", {"compression": "av1", "Q": 61, "effort": 1, "bitdepth": 10}),
    ("webp", None): ("webpsave_buffer", {"Q": 61, "effort": 2}),
    ("jpeg", None): ("jpegsave_buffer", {"Q": 61, "optimize_coding": True, "quant_table": 5}),
    ("jpeg", 4): OLD["jpeg", 4],
}
SETTINGS = {1: OLD, 2: OLD, 3: NEW}


@pytest.mark.parametrize(
    ("version", "image_format", "effort"), [(version, *key) for version, settings in SETTINGS.items() for key in settings]
)
def test_encode_uses_the_settings_of_the_version(version: int, image_format: Format, effort: int | None) -> None:
    method, arguments = SETTINGS[version][image_format, effort]
    expected = getattr(PICTURE, method)(**arguments, keep="none")
    assert encode(PICTURE, image_format, 61, EncodeOptions(effort=effort, version=version)) == expected


def test_encode_without_options_uses_the_settings_of_the_current_version() -> None:
    assert encode(PICTURE, "avif", 61) == encode(PICTURE, "avif", 61, EncodeOptions(version=PIPELINE_VERSION))


def test_default_qualities_of_released_versions_stay() -> None:
    old: tuple[Format, ...] = ("avif", "webp", "jpeg", "png", "gif")
    assert [DEFAULTS[1].quality[name] for name in old] == [58, 80, 80, 100, 100]
    assert [DEFAULTS[2].quality[name] for name in old] == [58, 82, 73, 100, 100]


@pytest.mark.parametrize("version", SETTINGS)
def test_lossless_avif_has_exactly_the_pixels(version: int) -> None:
    body = encode(PICTURE, "avif", 61, EncodeOptions(lossless=True, version=version))
    assert images.decode(body).convert("RGB").tobytes() == bytes(PICTURE.write_to_memory())
