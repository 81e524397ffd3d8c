"""The open ladder: which URLs need no signature, and how many renditions of an image strangers can request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.images.formats import FORMAT_OF_EXTENSION, FORMATS, Format
from service.images.info import ImageInfo
from service.images.ladder import LADDER_WIDTHS
from service.images.transform import PIPELINE_VERSION, Transform, parse
from service.urls.rendition_url import AUTO, RenditionUrl, parse_rendition_url
from service.urls.signing import UNSIGNED, Signer, UrlBuilder
from service.urls.unsigned import FIRST_OPEN_VERSION, UnsignedTransforms, open_formats, unsigned_transforms
from tests.support.renders import LIMITS

DIGEST = "k5x7q2" + "a" * 26
PHOTO = ImageInfo("jpeg", 4_032, 3_024, 1, alpha=False, needs_full_decode=False)
SMALL = ImageInfo("jpeg", 1_000, 750, 1, alpha=False, needs_full_decode=False)
CUTOUT = ImageInfo("png", 2_000, 1_000, 1, alpha=True, needs_full_decode=False)
FILM = ImageInfo("gif", 600, 400, 12, alpha=True, needs_full_decode=True)
OPEN = unsigned_transforms((), open_ladder=True)
BUILDER = UrlBuilder(Signer([bytes(32)], OPEN), "", LIMITS)


def address(transform: str, extension: str = "webp", version: int = PIPELINE_VERSION) -> RenditionUrl:
    return RenditionUrl(version, DIGEST, transform, extension)


def permitted(unsigned: UnsignedTransforms, transform: str, extension: str, info: ImageInfo = PHOTO) -> bool:
    return unsigned.permit(address(transform, extension), info, parse(transform))


@pytest.mark.parametrize("info", [PHOTO, SMALL, CUTOUT, FILM], ids=["photo", "small photo", "cutout", "film"])
def test_every_url_of_a_document_is_one_that_anyone_can_build(info: ImageInfo) -> None:
    markup = BUILDER.markup(DIGEST, info, Transform())
    for source in markup.sources:
        for link in source.renditions:
            url, signature = parse_rendition_url(link.url.encode("ascii"))
            assert signature == UNSIGNED
            assert url.transform in {f"width={width}" for width in LADDER_WIDTHS}
            assert OPEN.permit(url, info, parse(url.transform))


def test_last_step_of_a_small_photo_has_the_next_width_of_the_ladder_in_its_url() -> None:
    webp = BUILDER.markup(DIGEST, SMALL, Transform()).sources[2]
    assert [(link.width, link.url.split("/")[4]) for link in webp.renditions] == [
        (320, "width=320"),
        (640, "width=640"),
        # At 960 pixels, it would have nearly as many bytes.
        (1_000, "width=1280"),
    ]


def test_photo_at_a_width_of_the_ladder_has_no_wider_step() -> None:
    exact = ImageInfo("jpeg", 640, 480, 1, alpha=False, needs_full_decode=False)
    assert [link.width for link in BUILDER.markup(DIGEST, exact, Transform()).sources[0].renditions] == [320, 640]
    assert BUILDER.markup(DIGEST, exact, Transform()).src.split("/")[4] == "width=640"


@pytest.mark.parametrize("text", ["width=320,round=20", "full", "width=321", "width=320,quality=80", "height=320", "width=3840"])
def test_other_transforms_are_signed_and_refused_without_a_signature(text: str) -> None:
    url, signature = parse_rendition_url(BUILDER.url(DIGEST, PHOTO, parse(text), "webp").encode("ascii"))
    assert signature != UNSIGNED
    assert not OPEN.permit(url, PHOTO, parse(text))


@pytest.mark.parametrize("version", range(1, FIRST_OPEN_VERSION))
def test_ladder_of_earlier_pipeline_versions_is_signed(version: int) -> None:
    assert not OPEN.permit_transform(address("width=320", version=version))


def test_jpeg_is_open_for_every_image_and_png_and_gif_for_images_that_need_them() -> None:
    opened: dict[str, list[str]] = {
        name: [extension for extension in (*FORMAT_OF_EXTENSION, AUTO) if permitted(OPEN, "width=640", extension, info)]
        for name, info in {"photo": PHOTO, "cutout": CUTOUT, "film": FILM}.items()
    }
    assert opened == {
        "photo": ["jxl", "avif", "webp", "jpg", "auto"],
        "cutout": ["jxl", "avif", "webp", "jpg", "png", "auto"],
        "film": ["jxl", "avif", "webp", "jpg", "gif", "auto"],
    }


def test_variants_are_open_as_they_are_and_at_every_width_of_the_ladder() -> None:
    unsigned = unsigned_transforms((), open_ladder=True, widths=(320, 640), variants=(parse("width=400,height=300,fit=cover,round=20"),))
    assert unsigned.ladder == {
        "width=320",
        "width=640",
        "width=400,height=300,fit=cover,round=20",
        "width=320,height=240,fit=cover,round=16",
        "width=640,height=480,fit=cover,round=32",
    }


def test_variant_without_a_width_is_open_at_other_widths_only_if_it_has_no_lengths() -> None:
    gray, rounded = parse("grayscale=true"), parse("round=20")
    unsigned = unsigned_transforms((), open_ladder=True, widths=(320,), variants=(gray, rounded))
    assert unsigned.ladder == {"width=320", "grayscale=true", "width=320,grayscale=true", "round=20"}


def test_variant_with_a_ratio_is_open_as_a_client_spells_it() -> None:
    wide = parse("ratio=16:9")
    unsigned = unsigned_transforms((), open_ladder=True, widths=(320, 640), variants=(wide,))
    assert unsigned.ladder == {"width=320", "width=640", "ratio=16:9", "width=320,ratio=16:9", "width=640,ratio=16:9"}
    markup = UrlBuilder(Signer([bytes(32)], unsigned), "", LIMITS, default_widths=(320, 640)).markup(DIGEST, SMALL, wide)
    assert [link.url.split("/", 4)[4] for link in markup.sources[-1].renditions] == [
        "width=320,ratio=16:9/-.jpg",
        "width=640,ratio=16:9/-.jpg",
    ]


@pytest.mark.parametrize("variant", ["full", "ratio=16:9", "quality=70", "max_bytes=20000", "effort=2"])
@pytest.mark.parametrize("info", [PHOTO, SMALL, CUTOUT, FILM], ids=["photo", "small photo", "cutout", "film"])
def test_every_url_of_a_document_is_open_with_the_servers_quality_too(info: ImageInfo, variant: str) -> None:
    quality: dict[Format, int] = {"avif": 55, "webp": 78, "jpeg": 60}
    transform = parse(variant)
    unsigned = unsigned_transforms((), open_ladder=True, variants=(transform,), quality=quality)
    builder = UrlBuilder(Signer([bytes(32)], unsigned), "", LIMITS, quality=quality)
    for source in builder.markup(DIGEST, info, transform).sources:
        for link in source.renditions:
            url, signature = parse_rendition_url(link.url.encode("ascii"))
            assert signature == UNSIGNED
            own = quality.get(FORMAT_OF_EXTENSION[url.extension])
            decides = transform.quality is not None or transform.max_bytes is not None
            assert (f"quality={own}" in url.transform) == (own is not None and not decides)


def test_servers_quality_is_open_in_its_own_format_only_and_beside_the_plain_ladder() -> None:
    unsigned = unsigned_transforms(("full",), open_ladder=True, widths=(320,), quality={"avif": 55, "webp": 78})
    opened = {
        (transform, extension)
        for transform in ("full", "width=320", "width=320,quality=55", "width=320,quality=78", "quality=78", "width=640,quality=78")
        for extension in (*FORMAT_OF_EXTENSION, AUTO)
        if unsigned.permit(address(transform, extension), PHOTO, parse(transform))
    }
    every = {*FORMAT_OF_EXTENSION, AUTO}
    assert opened == {("full", extension) for extension in every} | {("width=320", extension) for extension in every - {"png", "gif"}} | {
        ("width=320,quality=55", "avif"),
        ("width=320,quality=78", "webp"),
    }
    assert not unsigned.permit_transform(address("width=320,quality=78", "webp", version=FIRST_OPEN_VERSION - 1))


def test_variant_is_open_in_the_spelling_of_each_format() -> None:
    variant = parse("width=320,quality=70")
    unsigned = unsigned_transforms((), open_ladder=True, widths=(320,), variants=(variant,))
    builder = UrlBuilder(Signer([bytes(32)], unsigned), "", LIMITS)
    formats: tuple[Format, ...] = ("webp", "jpeg", "png")
    urls = {image_format: builder.url(DIGEST, CUTOUT, variant, image_format) for image_format in formats}
    assert {name: url.split("/", 4)[4] for name, url in urls.items()} == {
        "webp": "width=320,quality=70/-.webp",
        "jpeg": "width=320,quality=70/-.jpg",
        # PNG has no quality.
        "png": "width=320/-.png",
    }


def test_variant_at_a_width_whose_height_would_be_too_long_is_left_out() -> None:
    tall = parse("width=10,height=8000,fit=cover")
    assert unsigned_transforms((), open_ladder=True, widths=(10, 320), variants=(tall,)).ladder == {
        "width=10",
        "width=320",
        "width=10,height=8000,fit=cover",
    }


def test_listed_transforms_are_open_in_every_format_and_version_without_the_ladder() -> None:
    unsigned = unsigned_transforms(["full"], open_ladder=False)
    for version in range(1, PIPELINE_VERSION + 1):
        for extension in (*FORMAT_OF_EXTENSION, AUTO):
            assert unsigned.permit(address("full", extension, version), PHOTO, Transform())
            assert not unsigned.permit_transform(address("width=320", extension, version))


@given(
    st.lists(st.integers(1, 3_840), min_size=1, max_size=16, unique=True).map(sorted),
    st.lists(
        st.sampled_from(["width=400,height=300,fit=cover", "grayscale=true", "round=9", "width=96,round=max", "quality=40"]),
        max_size=5,
        unique=True,
    ),
    st.sampled_from([PHOTO, SMALL, CUTOUT, FILM]),
)
def test_renditions_that_strangers_can_request_of_an_image_are_bounded(widths: list[int], variants: list[str], info: ImageInfo) -> None:
    unsigned = unsigned_transforms((), open_ladder=True, widths=widths, variants=[parse(text) for text in variants])
    # Of each variant: itself and every width; and each of them without the options that have no effect in a format.
    shapes = len(widths) + len(variants) * (len(widths) + 1)
    assert len(unsigned.ladder) <= 2 * shapes
    assert len(open_formats(info, Transform())) <= 5 < len(FORMATS)


def test_error_names_the_open_transforms_narrowest_first_and_no_more_than_sixteen() -> None:
    assert OPEN.description == ("a signature, or one of the transforms width=320 width=640 width=960 width=1280 width=1920 width=2560")
    many = unsigned_transforms((), open_ladder=True, widths=range(100, 200))
    assert many.description.endswith("width=115, and 84 more")
    assert unsigned_transforms((), open_ladder=False).description == "a signature: DARKROOM_UNSIGNED is none"
