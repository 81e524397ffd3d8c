"""darkroom.js makes the same markup and the same URLs as the service."""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.images import picture
from service.images.formats import FORMAT_OF_EXTENSION
from service.images.info import ImageInfo
from service.images.transform import PIPELINE_VERSION, Transform
from service.urls.rendition_url import AUTO, MAX_TRANSFORM_CHARACTERS, MAX_URL_CHARACTERS, PullUrl, RenditionUrl
from service.urls.signing import UNSIGNED, Signer, UrlBuilder
from service.urls.unsigned import unsigned_transforms
from tests.support.renders import LIMITS
from tests.vectors import make
from tests.web.conftest import DarkroomJs, DarkroomJsError

DIGEST = "k5x7q2" + "a" * 26
SIGNER = Signer([bytes(range(32))])
OPEN = unsigned_transforms((), open_ladder=True)
HDR = ImageInfo("jpeg", 640, 480, 1, alpha=False, needs_full_decode=False, dynamic_range="high")
PHOTO = ImageInfo("jpeg", 2400, 1800, 1, alpha=False, needs_full_decode=False)
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
    assert js("load", manifest(), {}, wanted) == url(photo, "image/webp", step_width)
    assert js("load", manifest(), {"format": "avif"}, wanted) == url(photo, "image/avif", step_width)
    assert js("load", photo, {"format": "jpeg"}, {**wanted, "src": DIGEST}) == url(photo, "image/jpeg", step_width)
    assert js("transform", manifest(), {}, "photos/boat.jpg", {"width": width, "height": 9}) == url(photo, "image/webp", step_width)
    assert js("transform", photo, {}, "x", {"width": str(width), "format": "avif"}, {}) == url(photo, "image/avif", step_width)


def test_transformer_without_a_width_returns_the_widest_step(js: DarkroomJs) -> None:
    assert js("transform", manifest(), {}, "photos/boat.jpg") == url(document(), "image/webp", 2400)


@pytest.mark.parametrize("image_format", ["webp", "avif"])
def test_loader_of_an_image_without_the_format_returns_its_fallback(js: DarkroomJs, image_format: str) -> None:
    line = document(LINE)
    wanted = {"src": DIGEST, "width": 640, "quality": 75}
    assert js("load", line, {"format": image_format}, wanted) == line["sources"][-1]["renditions"][-1]["url"]
    assert [source["type"] for source in line["sources"]] == ["image/jxl", "image/jpeg"]


@pytest.mark.parametrize(
    ("width", "step_width"), [(1, 320), (320, 320), (321, 640), (750, 960), (1200, 1280), (1920, 1920), (2048, 2560), (3840, 2560)]
)
def test_loader_with_a_server_makes_the_url_of_the_open_ladder_from_a_digest(js: DarkroomJs, width: int, step_width: int) -> None:
    for extension, image_format in {"jxl": "jxl", "avif": "avif", "webp": "webp", "jpg": "jpeg", "auto": "auto"}.items():
        expected = RenditionUrl(PIPELINE_VERSION, DIGEST, f"width={step_width}", extension)
        assert OPEN.permit(expected, PHOTO, Transform())
        options = {"format": image_format}
        wanted = {"src": DIGEST, "width": width, "quality": 75}
        assert js("load", {"base": "https://img.example.com/"}, options, wanted) == f"https://img.example.com{expected.path(UNSIGNED)}"
        assert js("transform", {"base": ""}, options, DIGEST, {"width": width}) == expected.path(UNSIGNED)


def test_loader_with_a_server_uses_webp_and_the_widths_of_the_server(js: DarkroomJs) -> None:
    server = {"base": "https://img.example.com", "widths": [100, 200]}
    found = [js("load", server, {}, {"src": DIGEST, "width": width}) for width in (90, 150, 900)]
    assert found == [f"https://img.example.com/i/v3/{DIGEST}/width={step_width}/-.webp" for step_width in (100, 200, 200)]
    assert js("transform", server, {}, DIGEST) == found[-1]


def test_loader_with_a_server_refuses_what_is_no_digest_or_format(js: DarkroomJs) -> None:
    server = {"base": "https://img.example.com"}
    error = 'The digest is invalid: expected 32 of a-z and 2-7, as in an image document, got "boat.jpg".'
    assert error_of(js, "load", server, {}, {"src": "boat.jpg", "width": 320}) == error
    assert error_of(js, "load", server, {"format": "heic"}, {"src": DIGEST, "width": 320}).startswith(
        "The extension is invalid: expected jxl, "
    )


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
    for error in (error_of(js, "image", manifest(), path), error_of(js, "load", manifest(), {}, {"src": path, "width": 1})):
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
    assert error_of(js, "loader", content).startswith(start)
    assert error_of(js, "transformer", content).startswith(start)


# ---- Signing


def random_url(rng: random.Random) -> RenditionUrl | PullUrl:
    """Return a random URL of any form that the grammar allows."""
    # Mostly short transforms, and some as long as is allowed.
    max_length = rng.choice((12, 80, MAX_TRANSFORM_CHARACTERS))
    characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:_=,-"
    transform = rng.choice((*make.TRANSFORMS, *make.LATER_TRANSFORMS, "".join(rng.choices(characters, k=rng.randint(1, max_length)))))
    extension = rng.choice((*FORMAT_OF_EXTENSION, AUTO))
    if rng.random() < 0.25:
        path = "".join(
            chr(rng.choice((rng.randint(33, 126), rng.randint(0xA1, 0xD7FF), rng.randint(0x10000, 0x1FFFF))))
            for _ in range(rng.randint(0, 300))
        )
        return PullUrl(f"https://example.com/{path}", transform, extension)
    digest = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz234567", k=32))
    return RenditionUrl(rng.choice((1, PIPELINE_VERSION, rng.randint(1, 999_999))), digest, transform, extension)


def test_signer_signs_a_thousand_random_urls_as_the_service_does(js: DarkroomJs) -> None:
    rng = random.Random(6)
    signed = 0
    for length in (16, 20, 32, 64, 65, 100):
        key = rng.randbytes(length)
        urls = [random_url(rng) for _ in range(170)]
        expected = [Signer([key]).sign(url) for url in urls]
        assert js("sign", key.hex(), [msgspec.to_builtins(url) for url in urls]) == expected
        assert len(set(expected)) == len(expected)
        signed += len(expected)
    assert signed >= 1_000


def test_signer_signs_the_shared_vectors(js: DarkroomJs) -> None:
    for vector in make.vectors()["accepted"]:
        rendition = {name: vector[name] for name in ("version", "digest", "transform", "extension")}
        # darkroom.js signs with the first key, as the server does.
        keys = ", ".join([vector["keys"][vector["signed_by"]].upper(), *vector["keys"]])
        assert js("sign", keys, [rendition]) == [vector["path"]]


def test_signer_uses_the_defaults_for_fields_that_are_left_out(js: DarkroomJs) -> None:
    key = bytes(range(32))
    assert js("PIPELINE_VERSION") == PIPELINE_VERSION
    short = [{"digest": DIGEST, "extension": "avif"}, {"url": "https://example.com/ä.jpg"}]
    full: list[RenditionUrl | PullUrl] = [
        RenditionUrl(PIPELINE_VERSION, DIGEST, "full", "avif"),
        PullUrl("https://example.com/ä.jpg", "full", AUTO),
    ]
    assert js("sign", key.hex(), short) == [Signer([key]).sign(url) for url in full]


@pytest.mark.parametrize("keys", ["", None, " , ", "abc", "0" * 31, "0" * 30, "0" * 33, "g" * 32, "secret" * 8])
def test_signer_with_an_invalid_key_is_an_error_that_does_not_contain_it(js: DarkroomJs, keys: str | None) -> None:
    error = error_of(js, "signer", keys)
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
        ({"version": 0}, "version", "1 to 999999"),
        ({"version": "2"}, "version", "1 to 999999"),
        ({"version": 1_000_000}, "version", "1 to 999999"),
        ({"url": "https://example.com/"}, "digest", "a digest or a URL, not both"),
        ({"digest": None, "url": ""}, "URL", "text of at most 2048"),
        ({"digest": None, "url": 7}, "URL", "text of at most 2048"),
        ({"digest": None, "url": "https://example.com/\ud800"}, "URL", "text of at most 2048"),
        ({"digest": None, "url": "a" * (MAX_URL_CHARACTERS * 3 // 4 + 1)}, "URL", "text of at most 2048"),
    ],
)
def test_signer_with_an_invalid_field_is_an_error_that_says_what_is_expected(
    js: DarkroomJs, change: dict[str, Any], field: str, expected: str
) -> None:
    rendition = {name: value for name, value in (RENDITION_URL | change).items() if value is not None}
    error = error_of(js, "sign", "00" * 32, [rendition])
    assert error.startswith(f"The {field} is invalid: expected ")
    assert expected in error


def test_signer_signs_a_source_url_of_the_maximum_length(js: DarkroomJs) -> None:
    longest = "a" * (MAX_URL_CHARACTERS * 3 // 4)
    assert js("sign", "00" * 32, [{"url": longest}]) == [Signer([bytes(32)]).sign(PullUrl(longest, "full", AUTO))]
