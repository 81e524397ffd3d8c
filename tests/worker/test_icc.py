"""ICC profiles that are damaged or cannot describe an image are ignored in every format, and never written into a rendition."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path

import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageCms

from service.images.formats import Format
from service.rendering.pool import RenderPool
from service.worker import icc
from tests.support import images, reference
from tests.support.chromium import Painter, visible_distance
from tests.support.renders import rendered, written

pytestmark = pytest.mark.anyio

# The largest mean differences in levels: of two renditions that should be the same, and of one and its original by another decoder.
EQUAL, SIMILAR = 0.1, 2.0

WIDE = images.wide_profile()


def tag(profile: bytes, name: bytes) -> int:
    """Return the position of a tag's entry in the table of a profile."""
    count = int.from_bytes(profile[128:132], "big")
    return next(at for at in range(132, 132 + 12 * count, 12) if profile[at : at + 4] == name)


def with_bytes(at: int, new: bytes, profile: bytes = WIDE) -> bytes:
    return profile[:at] + new + profile[at + len(new) :]


def in_tag(name: bytes, offset: int, new: bytes) -> bytes:
    """Return the profile with other bytes in the data of a tag."""
    return with_bytes(int.from_bytes(WIDE[tag(WIDE, name) + 4 : tag(WIDE, name) + 8], "big") + offset, new)


UNUSABLE: Mapping[str, bytes] = {
    "cut in half": WIDE[: len(WIDE) // 2],
    "header only": WIDE[:128],
    "one byte": b"x",
    "no tags": WIDE[:128] + bytes(4),
    "too many tags": with_bytes(128, struct.pack(">I", 1 << 31)),
    "wrong signature": with_bytes(36, b"nope"),
    "declared too long": with_bytes(0, struct.pack(">I", 1 << 31)),
    "declared too short": with_bytes(0, struct.pack(">I", 140)),
    "unknown version": with_bytes(8, b"\x09"),
    "tag outside": with_bytes(tag(WIDE, b"rTRC") + 4, struct.pack(">I", 10**6)),
    "tag too long": with_bytes(tag(WIDE, b"rXYZ") + 8, struct.pack(">I", 1 << 31)),
    "curve of an unknown type": in_tag(b"rTRC", 0, b"\xe9\xff\xfe\xfd"),
    "curve too long": in_tag(b"rTRC", 8, struct.pack(">I", 1 << 31)),
    "name that is not UTF-8": images.unreadable_profile(),
    "device link": with_bytes(12, b"link"),
    "abstract": with_bytes(12, b"abst"),
    "named colors": with_bytes(12, b"nmcl"),
    "no curves": with_bytes(tag(WIDE, b"gTRC"), b"none"),
    "no colorants": with_bytes(tag(WIDE, b"rXYZ"), b"none"),
    "of gray": images.gray_profile(),
    "of four inks": images.cmyk_profile(),
    "of Lab": with_bytes(16, b"Lab "),
    "unknown connection space": with_bytes(20, b"HSV "),
}


OPTIONS: Mapping[str, Mapping[str, object]] = {
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 90, "speed": 9},
}


def in_container(container: str, profile: bytes | None, mode: str = "RGB") -> bytes:
    picture = images.picture(96, 64).convert(mode)
    body = io.BytesIO()
    if container == "HEIF":
        heif = pillow_heif.from_pillow(picture)
        heif.info["icc_profile"] = profile
        heif.save(body, quality=95, chroma=444)
        return body.getvalue()
    options = OPTIONS.get(container, {})
    picture.save(body, container, icc_profile=profile, **options)
    return body.getvalue()


QUICK = {
    ("curve of an unknown type", "JPEG"),
    ("cut in half", "HEIF"),
    ("device link", "AVIF"),
    ("tag outside", "WEBP"),
    ("of gray", "PNG"),
}
PAIRS = [
    pytest.param(kind, container, marks=() if (kind, container) in QUICK else pytest.mark.long)
    for kind in UNUSABLE
    for container in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")
]


@pytest.mark.parametrize(("kind", "container"), PAIRS)
async def test_unusable_profile_is_ignored(pool: RenderPool, tmp_path: Path, kind: str, container: str) -> None:
    path = written(tmp_path, in_container(container, UNUSABLE[kind]))
    plain = written(tmp_path, in_container(container, None), "plain")
    for spelling in ("full", "width=24", "profile=keep", "profile=p3"):
        image, expected = [images.decode((await rendered(pool, original, spelling, "png")).body) for original in (path, plain)]
        assert images.distance(image, expected) < EQUAL
        assert image.info.get("icc_profile") == expected.info.get("icc_profile")


@pytest.mark.parametrize("image_format", ["avif", "jpeg", "png", "webp"])
@pytest.mark.parametrize("kind", ["device link", "no tags", "declared too long"])
async def test_rendition_of_an_unusable_profile_has_none_in_any_format(
    pool: RenderPool, tmp_path: Path, kind: str, image_format: Format
) -> None:
    path = written(tmp_path, in_container("JPEG", UNUSABLE[kind]))
    image = images.decode((await rendered(pool, path, "profile=keep", image_format)).body)
    assert not image.info.get("icc_profile")


async def test_unusable_profile_of_four_inks_is_ignored(pool: RenderPool, tmp_path: Path) -> None:
    bodies = [images.cmyk_jpeg(96, 64, profile=profile) for profile in (None, WIDE, images.cmyk_profile()[:600])]
    pictures = [images.decode((await rendered(pool, written(tmp_path, body), "full", "png")).body) for body in bodies]
    assert images.distance(pictures[0], pictures[1]) < EQUAL
    assert images.distance(pictures[0], pictures[2]) < EQUAL


@pytest.mark.parametrize("kind", [b"mntr", b"scnr", b"prtr", b"spac"])
async def test_profile_of_every_device_is_obeyed(pool: RenderPool, tmp_path: Path, kind: bytes) -> None:
    body = in_container("JPEG", with_bytes(12, kind))
    image = images.decode((await rendered(pool, written(tmp_path, body), "full", "png")).body)
    assert images.distance(image, reference.to_srgb(images.decode(body), WIDE)) < SIMILAR


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("tables", [{"A2B0": 1.5}, {"A2B1": 1.5}, {"A2B0": 1.5, "A2B1": 1.5}, {"A2B0": 1.5, "A2B1": 0.7}])
async def test_profile_of_rgb_with_tables_for_intents_is_obeyed_as_in_chromium(
    pool: RenderPool, painter: Painter, tmp_path: Path, tables: dict[str, float], version: int
) -> None:
    """Chromium takes the table of the perceptual intent, if there is one. It leaves the black of version 4 as it is (ICC.1:2022 §6.3.4)."""
    profile = with_bytes(8, bytes([version]), images.table_profile(**tables))
    body = in_container("PNG", profile)
    shown = painter.draw(body, "png")
    assert shown is not None
    for pipeline in (1, 2, 3):
        rendition = await rendered(pool, written(tmp_path, body), "full", "png", version=pipeline)
        assert visible_distance(images.decode(rendition.body), shown) < (SIMILAR if version == 2 else 2 * SIMILAR)


async def test_bytes_after_the_end_of_a_profile_are_not_written(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, in_container("JPEG", WIDE + b"trailing"))
    for image_format in ("png", "webp", "jpeg", "avif"):
        image = images.decode((await rendered(pool, path, "profile=keep", image_format)).body)
        assert image.info["icc_profile"] == WIDE


@pytest.mark.parametrize("container", ["JPEG", "PNG", "TIFF", "HEIF"])
async def test_profile_of_rgb_in_a_gray_image_is_obeyed(pool: RenderPool, tmp_path: Path, container: str) -> None:
    body = in_container(container, WIDE, "L")
    image = images.decode((await rendered(pool, written(tmp_path, body), "full", "png")).body)
    assert image.mode == "L"
    ideal = reference.to_srgb(images.picture(96, 64).convert("L").convert("RGB"), WIDE)
    assert images.distance(image.convert("RGB"), ideal) < SIMILAR
    kept = images.decode((await rendered(pool, written(tmp_path, body), "profile=keep", "png")).body)
    described = ImageCms.ImageCmsProfile(io.BytesIO(kept.info["icc_profile"]))
    assert described.profile.xcolor_space.strip() == "GRAY"


@given(st.integers(0, len(WIDE) - 1), st.binary(min_size=1, max_size=8))
def test_damaged_profile_is_trimmed_to_a_sound_one_or_to_nothing(start: int, noise: bytes) -> None:
    found = icc.trim(with_bytes(start, noise)[: len(WIDE)])
    assert len(found) in {0, int.from_bytes(found[:4], "big")}
    icc.gray_of_rgb(found)
    icc.is_perceptual(found)


@given(st.binary(max_size=300))
def test_noise_is_no_profile(noise: bytes) -> None:
    assert icc.trim(noise) == b""


def test_profiles_of_grays_need_three_equal_curves() -> None:
    assert icc.device_space(icc.gray_of_rgb(WIDE)) == b"GRAY"
    assert icc.trim(icc.gray_of_rgb(WIDE)) == icc.gray_of_rgb(WIDE)
    at = tag(WIDE, b"rTRC")
    assert icc.gray_of_rgb(with_bytes(at + 8, struct.pack(">I", 12))) == b""


async def test_profile_is_checked_once_for_many_pictures(pool: RenderPool, tmp_path: Path) -> None:
    """A second picture with the same profile is right too, whatever the first was."""
    gray, rgb = in_container("JPEG", WIDE, "L"), in_container("JPEG", WIDE)
    for body, mode in ((gray, "L"), (rgb, "RGB"), (gray, "L"), (rgb, "RGB")):
        image = images.decode((await rendered(pool, written(tmp_path, body), "full", "png")).body)
        ideal = reference.to_srgb(images.decode(body).convert("RGB"), WIDE)
        assert image.mode == mode
        assert images.distance(image.convert("RGB"), ideal) < SIMILAR
