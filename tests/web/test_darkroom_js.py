"""darkroom.js makes the same markup and the same URLs as the service."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BadTransformError
from service.images import picture
from service.images.formats import FORMAT_OF_EXTENSION, Format
from service.images.info import ImageInfo
from service.images.ladder import LADDER_WIDTHS, at_width
from service.images.name import image_name, is_image_name
from service.images.transform import PIPELINE_VERSION, Transform, for_format, parse, parse_canonical
from service.urls.rendition_url import AUTO, MAX_TRANSFORM_CHARACTERS, RenditionUrl
from service.urls.signing import UNSIGNED, Crop, Signer, UrlBuilder
from service.urls.source_url import MAX_OBJECT_PATH_CHARACTERS, SourceUrl
from service.urls.unsigned import unsigned_transforms
from tests.support.renders import LIMITS
from tests.vectors import make
from tests.web.conftest import DarkroomJs, DarkroomJsError

DIGEST = "k5x7q2" + "a" * 26
SIGNER = Signer([bytes(range(32))])
OPEN = unsigned_transforms((), open_ladder=True)
HDR = ImageInfo("jpeg", 640, 480, 1, alpha=False, needs_full_decode=False, dynamic_range="high")
PHOTO = ImageInfo("jpeg", 2400, 1800, 1, alpha=False, needs_full_decode=False)
CUTOUT = ImageInfo("png", 2400, 1800, 1, alpha=True, needs_full_decode=False)
ANIMATION = ImageInfo("gif", 600, 400, 12, alpha=True, needs_full_decode=True)
# The ladders of SCREENSHOT end at different widths; LINE has only the ladder of its fallback.
SCREENSHOT = ImageInfo("png", 1200, 18_000, 1, alpha=False, needs_full_decode=False)
LINE = ImageInfo("png", 100, 60_000, 1, alpha=False, needs_full_decode=False)

DELETE_THE_FILE = "Delete the file and run `darkroom push --manifest` again: it writes a new manifest, and uploads nothing twice."

RENDITION_URL = {"digest": DIGEST, "transform": "width=640", "extension": "webp"}


def document(info: ImageInfo = PHOTO, **changes: object) -> dict[str, Any]:
    """Return the fields of an image document that darkroom.js reads."""
    markup = UrlBuilder(SIGNER, "https://img.example.com", LIMITS).markup(DIGEST, info, Transform())
    return {"alt": "A boat", "width": info.width, "height": info.height, **msgspec.to_builtins(markup), **changes}


def manifest(**images: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "images": images or {"photos/boat.jpg": document(), "moves.gif": document(ANIMATION)}}


def url(image: dict[str, Any], media_type: str, width: int) -> str:
    (found,) = (
        link["url"]
        for source in image["sources"]
        if source["type"] == media_type
        for link in source["renditions"]
        if link["width"] == width
    )
    assert isinstance(found, str)
    return found


def error_of(js: DarkroomJs, name: str, *arguments: Any) -> str:
    """Call a function that has to throw, and return the message of the error."""
    with pytest.raises(DarkroomJsError) as caught:
        js(name, *arguments)
    return str(caught.value)


# ---- <picture> and srcset


def test_picture_of_a_document_is_the_markup_of_the_service(js: DarkroomJs) -> None:
    for info in (PHOTO, ANIMATION, SCREENSHOT, LINE):
        expected = UrlBuilder(SIGNER, "", LIMITS).markup(DIGEST, info, Transform(), alt="A boat")
        image = {"alt": "A boat", **msgspec.to_builtins(expected)}
        assert js("picture", image) == expected.picture == image["picture"]


def test_picture_with_a_high_dynamic_range_is_the_markup_of_the_service(js: DarkroomJs) -> None:
    expected = UrlBuilder(SIGNER, "", LIMITS).markup(DIGEST, HDR, Transform(dynamic_range="high"), alt="A boat")
    image = {"alt": "A boat", **msgspec.to_builtins(expected)}
    assert js("picture", image) == expected.picture
    assert expected.picture.count('media="(dynamic-range: high)"') == 3
    # A loader has one URL for all screens.
    assert "dynamic_range" not in js("srcset", image, "avif")
    assert js("srcset", image) == expected.sources[-1].srcset


# No deadline, because Node.js may be slow on a busy machine.
@settings(max_examples=30, deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), max_size=80),
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.text("<>&\"'/ =", max_size=30),
)
def test_picture_with_any_text_is_escaped_as_the_service_does(js: DarkroomJs, alt: str, sizes: str, src: str) -> None:
    image = document(src=src)
    sources = msgspec.convert(image["sources"], list[picture.PictureSource])
    fallback = picture.RenditionLink(1, 1, src)
    assert js("picture", image, {"alt": alt, "sizes": sizes}) == picture.picture(sources, fallback, sizes, alt)
    expected = picture.picture(sources, fallback, sizes, alt, priority=True)
    assert js("picture", image, {"alt": alt, "sizes": sizes, "priority": True}) == expected
    assert js("preload", image, {"sizes": sizes}) == picture.preload(sources, sizes)


@pytest.mark.parametrize("priority", [False, True])
@pytest.mark.parametrize(
    "crops",
    [
        [],
        [("(max-width: 40em)", PHOTO, "ratio=1:1", "90vw")],
        [("(max-width: 40em)", HDR, "ratio=1:1,dynamic_range=high", "auto, 90vw"), ("(width < 60em) and (hover)", PHOTO, "ratio=3:2", "")],
        [("(a) or (b)", HDR, "dynamic_range=high", ""), ("not (c)", SCREENSHOT, "full", ""), ("((d) or (e)) and (f)", LINE, "full", "1px")],
    ],
)
def test_picture_with_art_direction_is_the_markup_of_the_service(
    js: DarkroomJs, crops: list[tuple[str, ImageInfo, str, str]], priority: bool
) -> None:
    builder = UrlBuilder(SIGNER, "", LIMITS)
    directed = [Crop(media, DIGEST, info, parse(text), sizes) for media, info, text, sizes in crops]
    expected = builder.markup(
        DIGEST, HDR, Transform(dynamic_range="high"), alt="A boat", sizes="auto, 50vw", priority=priority, art_direction=directed
    )
    plain = {"alt": "A boat", **msgspec.to_builtins(builder.markup(DIGEST, HDR, Transform(dynamic_range="high")))}
    given = [
        {"media": crop.media, "sizes": crop.sizes, "image": msgspec.to_builtins(builder.markup(DIGEST, crop.info, crop.transform))}
        for crop in directed
    ]
    image = js("withArtDirection", plain, given)
    assert js("picture", image, {"sizes": "auto, 50vw", "priority": priority}) == expected.picture
    # The response of the server is an image like any other.
    response = {"alt": "A boat", **msgspec.to_builtins(expected)}
    assert js("picture", response, {"sizes": "auto, 50vw", "priority": priority}) == expected.picture
    if priority:
        assert js("preload", image, {"sizes": "auto, 50vw"}) == js("preload", response, {"sizes": "auto, 50vw"}) == expected.preload
    # A loader has one URL for all screens.
    assert js("srcset", image) == expected.sources[-1].srcset


@pytest.mark.parametrize("media", ["", "screen", "(a), (b)", "max-width: 40em", None, "screen and (a)"])
def test_art_direction_without_a_media_condition_is_refused(js: DarkroomJs, media: object) -> None:
    message = error_of(js, "withArtDirection", document(), [{"media": media, "image": document()}])
    assert "is not a media condition" in message
    assert "(max-width: 40em)" in message


def test_picture_with_attributes_puts_them_on_the_img_in_place_of_its_own(js: DarkroomJs) -> None:
    html = js(
        "picture", document(), {"class": 'a"b', "loading": "eager", "fetchpriority": "high", "hidden": True, "decoding": None, "data-x": 0}
    )
    image = html.splitlines()[-2]
    assert image.endswith('alt="A boat" loading="eager" class="a&quot;b" fetchpriority="high" hidden data-x="0">')
    # Only lazy images can have `auto`.
    assert html.count('sizes="100vw"') == 4
    assert "decoding" not in html
    assert html.count("class=") == 1


@pytest.mark.parametrize(
    "sizes", [None, "auto, 50vw", " AUTO ,50vw", "auto", "auto,", "", "50vw, auto", "automatic, 1px", "auto\u00a0,1px", 'a"\\é\n']
)
@pytest.mark.parametrize("info", [PHOTO, LINE, HDR])
def test_picture_and_preload_with_priority_are_those_of_the_service(js: DarkroomJs, info: ImageInfo, sizes: str | None) -> None:
    wanted: dict[str, Any] = {} if sizes is None else {"sizes": sizes}
    transform = Transform(dynamic_range="high")
    expected = UrlBuilder(SIGNER, "", LIMITS).markup(DIGEST, info, transform, alt="A boat", priority=True, **wanted)
    image = {"alt": "A boat", **msgspec.to_builtins(expected)}
    assert js("picture", image, {"priority": True, **wanted}) == expected.picture
    assert js("preload", image, wanted) == expected.preload != ""


@pytest.mark.parametrize(("loading", "auto"), [("lazy", True), ("LAZY", True), ("eager", False), (None, False), (False, False)])
def test_picture_has_auto_only_if_it_is_lazy(js: DarkroomJs, loading: object, auto: bool) -> None:
    assert js("picture", document(), {"loading": loading}).count('sizes="auto, 100vw"') == (4 if auto else 0)


def test_preload_links_are_the_header_as_html(js: DarkroomJs) -> None:
    markup = UrlBuilder(SIGNER, "", LIMITS).markup(DIGEST, HDR, Transform(dynamic_range="high"), priority=True)
    high, standard = markup.sources[0], markup.sources[3]
    assert js("preloadLinks", msgspec.to_builtins(markup)).splitlines() == [
        f'<link rel="preload" as="image" imagesrcset="{source.srcset}" imagesizes="100vw" type="image/jxl" media="{media}" '
        'fetchpriority="high">'
        for source, media in ((high, "(dynamic-range: high)"), (standard, "not all and (dynamic-range: high)"))
    ]
    assert "media" not in js("preloadLinks", document())


@pytest.mark.parametrize("name", ['x onload="y"', "", "1a", "a>"])
def test_picture_with_an_invalid_attribute_name_is_an_error_that_names_it(js: DarkroomJs, name: str) -> None:
    assert error_of(js, "picture", document(), {name: "1"}).endswith('is not the name of an attribute. Expected letters, digits and "-".')


def test_srcset_is_that_of_the_requested_format_or_the_closest_one(js: DarkroomJs) -> None:
    photo, moving = document(), document(ANIMATION)
    jxl, avif, webp, jpeg = (source["srcset"] for source in photo["sources"])
    assert [js("srcset", photo, *format_) for format_ in ([], ["jxl"], ["avif"], ["webp"], ["jpeg"], ["jpg"])] == [
        jpeg,
        jxl,
        avif,
        webp,
        jpeg,
        jpeg,
    ]
    # Without the requested format: the best one after it, or the fallback.
    avif, webp, gif = (source["srcset"] for source in moving["sources"])
    assert [js("srcset", moving, *format_) for format_ in ([], ["jxl"], ["avif"], ["webp"], ["jpeg"])] == [gif, avif, avif, webp, gif]


def test_srcset_in_an_unknown_format_is_an_error_that_lists_them(js: DarkroomJs) -> None:
    assert error_of(js, "srcset", document(), "heif") == 'There is no format "heif". Expected one of jxl, avif, webp, jpeg, png, gif.'


# ---- Loaders


@pytest.mark.parametrize(
    ("width", "step_width"),
    [(1, 320), (320, 320), (321, 640), (750, 960), (1200, 1280), (1920, 1920), (2048, 2400), (3840, 2400)],
)
def test_loader_returns_the_narrowest_step_that_is_wide_enough(js: DarkroomJs, width: int, step_width: int) -> None:
    photo = document()
    wanted = {"src": "photos/boat.jpg", "width": width, "quality": 75}
    assert js("loadFromManifest", manifest(), {}, wanted) == url(photo, "image/webp", step_width)
    assert js("loadFromManifest", manifest(), {"format": "avif"}, wanted) == url(photo, "image/avif", step_width)
    found = js("transformFromManifest", manifest(), {}, "/photos/boat.jpg", {"width": str(width), "height": 9, "format": "avif"}, {})
    assert found == url(photo, "image/avif", step_width)


def test_transformer_without_a_width_returns_the_widest_step(js: DarkroomJs) -> None:
    assert js("transformFromManifest", manifest(), {}, "photos/boat.jpg") == url(document(), "image/webp", 2400)


@pytest.mark.parametrize("image_format", ["webp", "avif"])
def test_loader_of_an_image_without_the_format_returns_its_fallback(js: DarkroomJs, image_format: str) -> None:
    line = document(LINE)
    wanted = {"src": "line.png", "width": 640, "quality": 75}
    images = manifest(**{"line.png": line})
    assert js("loadFromManifest", images, {"format": image_format}, wanted) == line["sources"][-1]["renditions"][-1]["url"]
    assert [source["type"] for source in line["sources"]] == ["image/jxl", "image/jpeg"]


@pytest.mark.parametrize(
    ("width", "step_width"), [(1, 320), (320, 320), (321, 640), (750, 960), (1200, 1280), (1920, 1920), (2048, 2560), (3840, 2560)]
)
def test_loader_with_a_server_makes_the_url_of_the_open_ladder_from_a_digest(js: DarkroomJs, width: int, step_width: int) -> None:
    for extension, image_format in {"jxl": "jxl", "avif": "avif", "webp": "webp", "jpg": "jpeg", "auto": "auto"}.items():
        expected = RenditionUrl(PIPELINE_VERSION, DIGEST, f"width={step_width}", extension)
        assert OPEN.permit(expected, PHOTO, Transform())
        server = {"base": "https://img.example.com/", "format": image_format}
        wanted = {"src": DIGEST, "width": width, "quality": 75}
        assert js("load", server, wanted) == f"https://img.example.com{expected.path(UNSIGNED)}"
        assert js("transform", {"base": ""}, f"/{DIGEST}", {"width": width, "format": image_format}, {}) == expected.path(UNSIGNED)


def test_loader_with_a_server_uses_webp_and_the_widths_of_the_server(js: DarkroomJs) -> None:
    server = {"base": "https://img.example.com", "widths": [100, 200]}
    found = [js("load", server, {"src": DIGEST, "width": width}) for width in (90, 150, 900)]
    assert found == [f"https://img.example.com/i/v3/{DIGEST}/width={step_width}/-.webp" for step_width in (100, 200, 200)]
    assert js("transform", server, DIGEST) == found[-1]


def test_loader_with_a_server_refuses_what_is_no_digest_or_format(js: DarkroomJs) -> None:
    server = {"base": "https://img.example.com"}
    error = 'The digest is invalid: expected 32 of a-z and 2-7, as in an image document, got "boat.jpg".'
    assert error_of(js, "load", server, {"src": "boat.jpg", "width": 320}) == error
    error = 'The format is invalid: expected jxl, avif, webp, jpg, png, gif, auto, got "heic".'
    assert error_of(js, "load", {**server, "format": "heic"}, {"src": DIGEST, "width": 320}) == error
    # Such as that of an undefined environment variable.
    error = "The base is invalid: expected the origin of a Darkroom server, got undefined."
    assert error_of(js, "load", {}, {"src": DIGEST, "width": 320}) == error


def test_loader_with_a_server_puts_the_name_of_an_image_at_the_end(js: DarkroomJs) -> None:
    found = js("load", {"base": ""}, {"src": f"{DIGEST}/Bärensee_2-ü", "width": 320})
    assert found == f"/i/v3/{DIGEST}/width=320/-/B%C3%A4rensee_2-%C3%BC.webp"


def test_loader_with_a_source_takes_the_path_of_an_image(js: DarkroomJs) -> None:
    server = {"base": "https://img.example.com", "source": "shop"}
    for path, spelled in {
        "boat.jpg": "boat.jpg",
        "/summer 2026/boat & sea.jpg": "summer%202026/boat%20%26%20sea.jpg",
        "ä/%2e.png": "%C3%A4/%252e.png",
        "boat.jpg?v=7": "boat.jpg%3Fv%3D7",
        "...": "...",
    }.items():
        assert js("load", server, {"src": path, "width": 640}) == f"https://img.example.com/from/shop/{spelled}/width=640/-.webp"


@pytest.mark.parametrize("path", ["", "..", "a/../b.jpg", "a/./b.jpg", "a//b.jpg", "a/"])
def test_loader_with_a_source_refuses_segments_that_browsers_remove(js: DarkroomJs, path: str) -> None:
    error = error_of(js, "load", {"base": "", "source": "shop"}, {"src": path, "width": 640})
    assert error == f'The path is invalid: expected names separated by single slashes, got "{path}".'


@pytest.mark.parametrize(
    ("variant", "transform"),
    [
        ("quality=50", "width=640,quality=50"),
        ("grayscale=true", "width=640,grayscale=true"),
        ("rotate=90", "rotate=90,width=640"),
        ("crop=0:0:10:10,rotate=90,quality=50", "crop=0:0:10:10,rotate=90,width=640,quality=50"),
        ("width=100", "width=640"),
        ("ratio=16:9", "width=640,ratio=16:9"),
        ("flip=vertical,ratio=16:9,gravity=north,quality=50", "flip=vertical,width=640,ratio=16:9,gravity=north,quality=50"),
        ("width=100,ratio=1:1,round=max", "width=640,ratio=1:1,round=max"),
        ("width=96,height=97,fit=cover,round=max", "width=640,height=647,fit=cover,round=max"),
        ("frame=0,width=3,height=1,fit=cover", "frame=0,width=640,height=213,fit=cover"),
    ],
)
def test_loader_with_a_variant_makes_urls_that_the_server_has_open(js: DarkroomJs, variant: str, transform: str) -> None:
    server = unsigned_transforms((), open_ladder=True, variants=[parse_canonical(variant)])
    expected = RenditionUrl(PIPELINE_VERSION, DIGEST, transform, "webp")
    assert server.permit_transform(expected)
    assert js("load", {"base": "", "variant": variant}, {"src": DIGEST, "width": 640}) == expected.path(UNSIGNED)
    assert js("transform", {"base": ""}, DIGEST, {"width": 640, "variant": variant}) == expected.path(UNSIGNED)


# The options of a variant, in canonical order, without lengths in pixels other than its width and height.
VARIANT_OPTIONS = (
    *("frame=2", "crop=10p:12.5p:50p:60p", "trim=10", "rotate=90", "flip=horizontal", "gravity=attention", "brightness=1.2"),
    *("contrast=0.9", "gamma=2.2", "saturation=1.5", "grayscale=true", "sharpen=1", "round=max", "background=ff8800", "profile=p3"),
    *("dynamic_range=high", "metadata=copyright", "quality=auto", "max_bytes=20000", "effort=6", "progressive=true"),
)
BOXES = ("", "width=100", "ratio=191:100", "width=100,ratio=2:3", "width=160,height=90", "width=160,height=90,fit=cover")


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, len(VARIANT_OPTIONS) - 1)), st.sampled_from(BOXES), st.sampled_from(LADDER_WIDTHS))
def test_loader_with_any_variant_makes_the_url_that_the_server_has_open(js: DarkroomJs, chosen: set[int], box: str, width: int) -> None:
    first = VARIANT_OPTIONS.index("gravity=attention")
    before, after = ([VARIANT_OPTIONS[index] for index in sorted(chosen) if (index < first) == early] for early in (True, False))
    text = ",".join([*before, *filter(None, [box]), *after]) or "quality=50"
    try:
        variant = parse_canonical(text)
    except BadTransformError:
        # Some options contradict each other, or need a box.
        return
    server = unsigned_transforms((), open_ladder=True, variants=[variant])
    found = js("transform", {"base": "", "variant": text}, DIGEST, {"width": width})
    assert found.split("/")[4] == at_width(variant, width, width).canonical_form
    assert server.permit_transform(RenditionUrl(PIPELINE_VERSION, DIGEST, found.split("/")[4], "webp"))


@pytest.mark.parametrize(
    "variant", [None, "ratio=16:9", "grayscale=true,metadata=all", "effort=2,progressive=true", "quality=50", "max_bytes=20000"]
)
@pytest.mark.parametrize("image_format", ["jxl", "avif", "webp", "jpeg", "jpg", "png"])
def test_loader_with_the_servers_quality_makes_urls_that_the_server_makes(js: DarkroomJs, variant: str | None, image_format: str) -> None:
    quality: dict[Format, int] = {"avif": 55, "webp": 78, "jpeg": 60}
    transform = parse_canonical(variant or "full")
    open_for_all = unsigned_transforms((), open_ladder=True, variants=[transform], quality=quality)
    extension = "jpg" if image_format == "jpeg" else image_format
    builder = UrlBuilder(Signer([bytes(32)], open_for_all), "", LIMITS, quality=quality)
    expected = builder.url(DIGEST, CUTOUT, at_width(transform, 640, 640), FORMAT_OF_EXTENSION[extension])
    server = {"base": "", "quality": quality, "variant": variant}
    made = js("load", {**server, "format": image_format}, {"src": DIGEST, "width": 640})
    # A format may have no use for an option of a variant: the server leaves it out.
    if for_format(transform, FORMAT_OF_EXTENSION[extension]) == transform:
        assert made == expected
    assert open_for_all.permit_transform(RenditionUrl(PIPELINE_VERSION, DIGEST, made.split("/")[4], extension))
    sources = js("ladder", {**server, "src": DIGEST, "formats": [image_format]})["sources"] if image_format != "jpg" else []
    assert all(source["renditions"][1]["url"] == made for source in sources)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8192), st.integers(1, 8192), st.sampled_from(LADDER_WIDTHS))
def test_loader_with_a_box_as_variant_rounds_its_height_as_the_server_does(js: DarkroomJs, across: int, down: int, width: int) -> None:
    variant = parse_canonical(f"width={across},height={down},fit=cover")
    try:
        expected = at_width(variant, width, width).canonical_form
    except BadTransformError:
        # The height would be above the limit.
        return
    assert js("transform", {"base": "", "variant": variant.canonical_form}, DIGEST, {"width": width}).split("/")[4] == expected


VARIANTS = [
    "quality=50",
    "width=160,height=90,fit=cover",
    "width=160,height=90,fit=cover,quality=50",
    "grayscale=true,quality=30",
    "ratio=1:1",
]


@pytest.mark.parametrize(
    ("wanted", "transform"),
    [
        ({"width": 640}, "width=640"),
        ({"width": 640, "quality": 50}, "width=640,quality=50"),
        ({"width": 640, "quality": "50"}, "width=640,quality=50"),
        # That of next/image and others, if they have one by default: Darkroom chooses the quality.
        ({"width": 640, "quality": 75}, "width=640"),
        ({"width": 640, "quality": 30}, "width=640,grayscale=true,quality=30"),
        ({"width": 640, "height": 360}, "width=640,height=360,fit=cover"),
        # Frameworks round heights, and multiply them by the pixel density.
        ({"width": 750, "height": 422}, "width=960,height=540,fit=cover"),
        ({"width": 1500, "height": 842}, "width=1920,height=1080,fit=cover"),
        # The aspect ratio of the image, perhaps.
        ({"width": 640, "height": 480}, "width=640"),
        ({"width": 640, "height": 360, "quality": 50}, "width=640,height=360,fit=cover,quality=50"),
        ({"width": 640, "height": 360, "quality": 75}, "width=640,height=360,fit=cover"),
        ({"width": 640, "height": 480, "quality": 50}, "width=640,quality=50"),
        ({"height": 360}, "width=2560"),
        ({"width": 640, "height": 640}, "width=640,ratio=1:1"),
        ({"width": 640, "height": 640, "quality": 50}, "width=640,ratio=1:1"),
    ],
)
def test_transformer_maps_height_and_quality_to_the_variant_that_has_them(js: DarkroomJs, wanted: dict[str, Any], transform: str) -> None:
    assert js("transform", {"base": "", "variants": VARIANTS}, DIGEST, wanted) == f"/i/v3/{DIGEST}/{transform}/-.webp"
    # The order of the variants is of no importance.
    assert js("transform", {"base": "", "variants": VARIANTS[::-1]}, DIGEST, wanted) == f"/i/v3/{DIGEST}/{transform}/-.webp"


# ---- The ladder of a digest


def test_ladder_of_a_digest_is_that_of_its_document(js: DarkroomJs) -> None:
    builder = UrlBuilder(Signer([bytes(range(32))], OPEN), "https://img.example.com", LIMITS)
    image = msgspec.to_builtins(builder.markup(DIGEST, PHOTO, Transform(), alt="A boat"))
    found = js("ladder", {"base": "https://img.example.com", "src": DIGEST, "width": PHOTO.width, "height": PHOTO.height})
    assert found["sources"] == image["sources"]
    assert found["src"] == image["src"]
    assert js("picture", found, {"alt": "A boat"}) == image["picture"]
    assert js("preload", found) == js("preload", image)


@pytest.mark.parametrize(("width", "count"), [(319, 1), (320, 1), (321, 2), (2560, 6), (9000, 6)])
def test_ladder_of_a_digest_ends_at_the_first_step_that_has_the_width_of_the_image(js: DarkroomJs, width: int, count: int) -> None:
    sources = js("ladder", {"base": "", "src": DIGEST, "width": width, "height": width})["sources"]
    for source in sources:
        transforms = [link["url"].split("/")[4] for link in source["renditions"]]
        assert transforms == [f"width={step_width}" for step_width in LADDER_WIDTHS[:count]]
        assert source["renditions"][-1]["width"] == source["renditions"][-1]["height"] == min(width, 2560)


def test_ladder_of_a_digest_without_a_size_has_all_steps_and_no_size(js: DarkroomJs) -> None:
    found = js("ladder", {"base": "", "src": DIGEST, "widths": [100, 200], "variant": "quality=50", "formats": ["avif", "png"]})
    assert [source["srcset"] for source in found["sources"]] == [
        f"/i/v3/{DIGEST}/width=100,quality=50/-.{extension} 100w, /i/v3/{DIGEST}/width=200,quality=50/-.{extension} 200w"
        for extension in ("avif", "png")
    ]
    html = js("picture", found)
    assert 'width="' not in html
    assert 'height="' not in html
    assert 'alt=""' in html


@pytest.mark.parametrize("path", ["photos/boat.jpg", "/photos/boat.jpg", "./photos/boat.jpg"])
def test_image_of_a_manifest_is_found_by_its_path(js: DarkroomJs, path: str) -> None:
    assert js("image", manifest(), path) == document()


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("boat.jpg", 'Near it of its 2 paths: "photos/boat.jpg".'),
        ("other/Boat.JPG", 'Near it of its 2 paths: "photos/boat.jpg".'),
        ("tree.jpg", 'Expected one of its 2 paths: "photos/boat.jpg", "moves.gif".'),
        ("constructor", 'Expected one of its 2 paths: "photos/boat.jpg", "moves.gif".'),
    ],
)
def test_image_that_is_not_in_the_manifest_is_an_error_that_suggests_similar_paths(js: DarkroomJs, path: str, hint: str) -> None:
    for error in (error_of(js, "image", manifest(), path), error_of(js, "loadFromManifest", manifest(), {}, {"src": path, "width": 1})):
        assert error == f'The manifest has no image "{path}". {hint} Correct the path, or push the image and write the manifest again.'


@pytest.mark.parametrize(
    ("content", "received", "remedy"),
    [
        ({"version": 0, "images": {}}, "version 0", DELETE_THE_FILE),
        ({"images": {}}, "version undefined", DELETE_THE_FILE),
        ({"version": 1}, "version 1 without images", DELETE_THE_FILE),
        ({"version": 2, "images": {}}, "version 2", "It was written by a newer Darkroom"),
        (None, "object", DELETE_THE_FILE),
        ("images.json", "string", DELETE_THE_FILE),
        ([], "version undefined without images", DELETE_THE_FILE),
    ],
)
def test_manifest_of_another_version_is_an_error_that_says_what_to_do(js: DarkroomJs, content: object, received: str, remedy: str) -> None:
    start = f"This is not a manifest that darkroom.js can read: expected version 1, got {received}. {remedy}"
    assert error_of(js, "image", content, "boat.jpg").startswith(start)
    # The error comes when the manifest is loaded, not with the first image.
    assert error_of(js, "manifestLoader", content).startswith(start)
    assert error_of(js, "manifestTransformer", content).startswith(start)


# ---- Signing

BAD_NAMES = (7, "a.b", "a/b", "..", "a b", "e\u0301", "\u0301", "\u202ea", "\ud800", "😀", "a" * 81, "\U00020000" * 61)
SIGNED_FIELDS = ("version", "digest", "source", "object_path", "transform", "extension", "name")

BAD_PATHS = ("", 7, "/a.jpg", "a//b.jpg", "a/../b.jpg", "./a.jpg", "a/", "..", "a\ud800.jpg", "ö" * (MAX_OBJECT_PATH_CHARACTERS // 6 + 1))


# Scripts with marks, with several normalization forms, and outside the Basic Multilingual Plane.
NAME_CODE_POINTS = [*range(0x20, 0x250), *range(0x300, 0x600), *range(0x900, 0xA00), *range(0xAC00, 0xAD00), *range(0x1D400, 0x1D500)]


def random_url(rng: random.Random) -> RenditionUrl | SourceUrl:
    """Return a random URL of any form that the grammar allows."""
    # Mostly short transforms, and some as long as is allowed.
    max_length = rng.choice((12, 80, MAX_TRANSFORM_CHARACTERS))
    characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:_=,-"
    transform = rng.choice((*make.TRANSFORMS, *make.LATER_TRANSFORMS, "".join(rng.choices(characters, k=rng.randint(1, max_length)))))
    extension = rng.choice((*FORMAT_OF_EXTENSION, AUTO))
    if rng.random() < 0.25:
        path = "".join(
            chr(rng.choice((rng.randint(32, 126), rng.randint(0xA1, 0xD7FF), rng.randint(0x10000, 0x1FFFF))))
            for _ in range(rng.randint(1, 200))
        )
        return SourceUrl("cms", re.sub(r"//+", "/", f"a{path}z"), transform, extension)
    digest = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz234567", k=32))
    name = image_name("".join(map(chr, rng.choices(NAME_CODE_POINTS, k=rng.choice((0, 8, 100))))))
    return RenditionUrl(rng.choice((1, PIPELINE_VERSION, rng.randint(1, 999_999))), digest, transform, extension, name)


def fields(url: RenditionUrl | SourceUrl) -> dict[str, Any]:
    """Return the fields of a URL as the signer takes them."""
    found: dict[str, Any] = msgspec.to_builtins(url)
    return {"path" if name == "object_path" else name: value for name, value in found.items()}


def test_signer_signs_a_thousand_random_urls_as_the_service_does(js: DarkroomJs) -> None:
    rng = random.Random(6)
    signed = 0
    for length in (16, 20, 32, 64, 65, 100):
        key = rng.randbytes(length)
        urls = [random_url(rng) for _ in range(170)]
        expected = [Signer([key]).sign(url) for url in urls]
        assert js("sign", key.hex(), [fields(url) for url in urls]) == expected
        assert js("signAtOnce", key.hex(), [fields(url) for url in urls]) == expected
        assert len(set(expected)) == len(expected)
        signed += len(expected)
    assert signed >= 1_000


def test_signed_and_unsigned_urls_are_those_of_the_shared_vectors(js: DarkroomJs) -> None:
    vectors = make.vectors()
    signed, unsigned = defaultdict(list), 0
    for vector in [*vectors["accepted"], *vectors["in_sources"]]:
        if vector["signed_by"] is not None:
            keys = [vectors["keys"][place] for place in vector["keys"]]
            # darkroom.js signs with the first key, as the server does.
            signed[", ".join([keys[vector["signed_by"]].upper(), *keys])].append(vector)
            continue
        server = {"base": "", "format": vector["extension"]}
        wanted = {"src": vector.get("digest"), "width": int(vector["transform"].removeprefix("width="))}
        if "source" in vector:
            server, wanted = {**server, "source": vector["source"]}, {**wanted, "src": vector["object_path"]}
        elif vector["name"]:
            wanted["src"] += f"/{vector['name']}"
        assert js("load", server, wanted) == vector["path"]
        unsigned += 1
    for text, found in signed.items():
        urls = [{"path" if name == "object_path" else name: vector[name] for name in SIGNED_FIELDS if name in vector} for vector in found]
        assert js("sign", text, urls) == js("signAtOnce", text, urls) == [vector["path"] for vector in found]
    assert unsigned >= 500
    assert unsigned + sum(map(len, signed.values())) >= 1_300


def test_signer_uses_the_defaults_for_fields_that_are_left_out(js: DarkroomJs) -> None:
    key = bytes(range(32))
    assert js("PIPELINE_VERSION") == PIPELINE_VERSION
    short = [{"digest": DIGEST, "extension": "avif"}, {"source": "cms", "path": "Größe 1/a.jpg"}]
    full: list[RenditionUrl | SourceUrl] = [
        RenditionUrl(PIPELINE_VERSION, DIGEST, "full", "avif"),
        SourceUrl("cms", "Größe 1/a.jpg", "full", AUTO),
    ]
    assert js("sign", key.hex(), short) == [Signer([key]).sign(url) for url in full]


@pytest.mark.parametrize("keys", ["", None, " , ", "abc", "0" * 31, "0" * 30, "0" * 33, "g" * 32, "secret" * 8])
def test_signer_with_an_invalid_key_is_an_error_that_does_not_contain_it(js: DarkroomJs, keys: str | None) -> None:
    error = error_of(js, "signer", keys)
    assert error_of(js, "signAtOnce", keys, []) == error
    assert re.match(
        r"This is not a signing key: expected an even number of hexadecimal digits, at least 32, got \d+ characters\. Use the value", error
    )
    assert "secret" not in error


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"digest": None}, "digest", "32 of a-z and 2-7"),
        ({"digest": DIGEST.upper()}, "digest", "32 of a-z and 2-7"),
        ({"digest": DIGEST[1:]}, "digest", "32 of a-z and 2-7"),
        ({"transform": ""}, "transform", "options in canonical form"),
        ({"transform": "width=640/../x"}, "transform", "options in canonical form"),
        ({"transform": "width=640\n"}, "transform", "options in canonical form"),
        ({"transform": {"width": 640}}, "transform", "options in canonical form"),
        ({"transform": "a" * (MAX_TRANSFORM_CHARACTERS + 1)}, "transform", "at most 1024 characters"),
        ({"extension": "jpeg"}, "extension", "jxl, avif, webp, jpg, png, gif, auto, got"),
        ({"extension": None}, "extension", "jxl, avif, webp, jpg, png, gif, auto, got"),
        *(({"name": name}, "name", "letters, digits, - and _ in NFC") for name in BAD_NAMES),
        ({"version": 0}, "version", "1 to 999999"),
        ({"version": "2"}, "version", "1 to 999999"),
        ({"version": 1_000_000}, "version", "1 to 999999"),
        ({"source": "cms", "path": "a.jpg"}, "digest", "a digest or a source, not both"),
        ({"digest": None, "source": "CMS", "path": "a.jpg"}, "source", "one of the server's DARKROOM_SOURCES"),
        ({"digest": None, "source": 7, "path": "a.jpg"}, "source", "one of the server's DARKROOM_SOURCES"),
        *(({"digest": None, "source": "cms", "path": path}, "path", "the path of an image in the source") for path in BAD_PATHS),
        ({"digest": None, "source": "cms"}, "path", "the path of an image in the source"),
    ],
)
def test_signer_with_an_invalid_field_is_an_error_that_says_what_is_expected(
    js: DarkroomJs, change: dict[str, Any], field: str, expected: str
) -> None:
    rendition = {name: value for name, value in (RENDITION_URL | change).items() if value is not None}
    error = error_of(js, "sign", "00" * 32, [rendition])
    assert error_of(js, "signAtOnce", "00" * 32, [rendition]) == error
    assert error.startswith(f"The {field} is invalid: expected ")
    assert expected in error


def test_signer_signs_a_source_url_of_the_maximum_length(js: DarkroomJs) -> None:
    longest = "ö" * (MAX_OBJECT_PATH_CHARACTERS // len("%C3%B6"))
    signed = Signer([bytes(32)]).sign(SourceUrl("cms", longest, "full", AUTO))
    assert js("sign", "00" * 32, [{"source": "cms", "path": longest}]) == [signed]


def test_signer_accepts_the_same_characters_in_names_as_the_service(js: DarkroomJs) -> None:
    rng = random.Random(8)
    # Later versions of Unicode, of which Python and Node.js have different ones, only add characters.
    assigned = [chr(point) for point in range(0x30000) if unicodedata.ucd_3_2_0.category(chr(point)) not in {"Cn", "Cs", "Co"}]
    for character in rng.sample(assigned, 300):
        for name in (character, f"a{character}", f"-{character}"):
            try:
                js("sign", "00" * 32, [{**RENDITION_URL, "name": name}])
                accepted = True
            except DarkroomJsError:
                accepted = False
            assert accepted == is_image_name(name), ascii(name)
