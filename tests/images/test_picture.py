import re
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadTransformError
from service.images.formats import FORMATS, Format
from service.images.geometry import make_plan
from service.images.info import ImageInfo
from service.images.ladder import LADDER_WIDTHS, default_formats, fallback_format, ladder_widths
from service.images.options import FocalPoint
from service.images.picture import Markup
from service.images.transform import DEFAULTS, Transform, parse, parse_canonical
from service.urls.rendition_url import parse_rendition_url as parse_address
from service.urls.signing import Crop, Signer, UrlBuilder
from tests.support.renders import LIMITS

DIGEST = "k5x7q2" + "a" * 26
SIGNER = Signer([bytes(range(32))])
URL_BUILDER = UrlBuilder(SIGNER, "", LIMITS)


def image(width: int = 4032, height: int = 3024, *, alpha: bool = False) -> ImageInfo:
    return ImageInfo("png" if alpha else "jpeg", width, height, 1, alpha, needs_full_decode=False)


def animation() -> ImageInfo:
    return ImageInfo("gif", 600, 400, 12, alpha=True, needs_full_decode=True)


def drawing() -> ImageInfo:
    return ImageInfo("svg", 24, 24, 1, alpha=True, needs_full_decode=True)


def srcset_candidates(srcset: str) -> list[tuple[str, str]]:
    """Return the URLs and descriptors of a srcset, read as the HTML standard reads one (§4.8.4.2.2)."""
    candidates = []
    rest = srcset
    while rest := rest.lstrip(" \t\n\f\r,"):
        url, _, rest = re.match(r"(\S*)(\s*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
        descriptor = ""
        if not url.endswith(","):
            descriptor, _, rest = rest.partition(",")
        candidates.append((url.rstrip(","), descriptor.strip()))
    return candidates


class Tags(HTMLParser):
    """The elements of some HTML, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def element(self, name: str) -> dict[str, str | None]:
        (found,) = (attributes for tag, attributes in self.tags if tag == name)
        return found


def links(markup: Markup) -> list[tuple[int, int]]:
    return [(link.width, link.height) for link in markup.sources[-1].renditions]


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        (1, [1]),
        (319, [319]),
        (320, [320]),
        (321, [320, 321]),
        (640, [320, 640]),
        (1000, [320, 640, 960, 1000]),
        (2559, [320, 640, 960, 1280, 1920, 2559]),
        (2560, [320, 640, 960, 1280, 1920, 2560]),
        (2561, [320, 640, 960, 1280, 1920, 2560]),
        (12_000, [320, 640, 960, 1280, 1920, 2560]),
    ],
)
def test_ladder_widths_of_an_image_end_at_its_own_width_or_at_the_widest_step(width: int, widths: list[int]) -> None:
    assert ladder_widths(width) == widths


@given(st.integers(1, 100_000))
def test_ladder_widths_of_any_image_rise_and_never_enlarge(width: int) -> None:
    widths = ladder_widths(width)
    assert widths == sorted(set(widths))
    assert widths[-1] == min(width, LADDER_WIDTHS[-1])


def test_formats_of_an_opaque_image_end_with_jpeg_and_of_one_with_alpha_with_png() -> None:
    assert default_formats(image()) == ("jxl", "avif", "webp", "jpeg")
    assert default_formats(image(alpha=True)) == ("jxl", "avif", "webp", "png")
    assert fallback_format(image()) == "jpeg"
    assert fallback_format(image(alpha=True)) == "png"


@pytest.mark.parametrize(
    ("image_format", "extension"),
    [("jxl", ".jxl"), ("avif", ".avif"), ("webp", ".webp"), ("jpeg", ".jpg"), ("png", ".png"), ("gif", ".gif")],
)
def test_url_of_a_rendition_is_its_signed_path_after_the_public_url(image_format: Format, extension: str) -> None:
    wanted = Transform(width=640, height=480, fit="cover", gravity=FocalPoint(0.3, 0.6))
    url = UrlBuilder(SIGNER, "https://img.example.com/x", LIMITS).url(DIGEST, image(), wanted, image_format)
    assert url.startswith(f"https://img.example.com/x/i/v3/{DIGEST}/width=640,height=480,fit=cover,gravity=focal:0.3:0.6/")
    assert url.endswith(extension)
    SIGNER.verify(*parse_address(url.removeprefix("https://img.example.com/x").encode("ascii")))
    assert "https://img.example.com/x" + URL_BUILDER.url(DIGEST, image(), wanted, image_format) == url


def test_markup_of_a_photo_has_its_ladder_in_every_format() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(), Transform())
    assert [source.type for source in markup.sources] == ["image/jxl", "image/avif", "image/webp", "image/jpeg"]
    for source in markup.sources:
        assert [(link.width, link.height) for link in source.renditions] == [
            (320, 240),
            (640, 480),
            (960, 720),
            (1280, 960),
            (1920, 1440),
            (2560, 1920),
        ]
        assert srcset_candidates(source.srcset) == [(link.url, f"{link.width}w") for link in source.renditions]
        for link in source.renditions:
            address, signature = parse_address(link.url.encode("ascii"))
            SIGNER.verify(address, signature)
            assert address.transform == f"width={link.width}"
    assert markup.src == markup.sources[-1].renditions[3].url


def test_markup_of_a_small_original_is_one_step_of_its_own_width() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(200, 100), Transform())
    assert links(markup) == [(200, 100)]
    assert markup.src == markup.sources[-1].renditions[0].url
    assert markup.sources[0].srcset == f"{markup.sources[0].renditions[0].url} 200w"


def test_markup_of_an_image_with_alpha_falls_back_to_png() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(alpha=True), Transform())
    assert [source.type for source in markup.sources] == ["image/jxl", "image/avif", "image/webp", "image/png"]
    assert markup.src.endswith(".png")


@pytest.mark.parametrize(
    ("width", "src_width"), [(100, 320), (1000, 1280), (1279, 1280), (1280, 1280), (1300, 1920), (1600, 1280), (8000, 1280)]
)
def test_markup_src_is_the_step_nearest_to_the_middle(width: int, src_width: int) -> None:
    markup = URL_BUILDER.markup(DIGEST, image(width, 500), Transform())
    assert f"/width={src_width}/" in markup.src


def test_markup_of_a_crop_keeps_its_shape_at_every_step() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(), Transform(width=1000, height=500, fit="cover", quality=60))
    assert links(markup) == [(320, 160), (640, 320), (1000, 500)]
    assert [parse_address(link.url.encode())[0].transform for link in markup.sources[0].renditions] == [
        f"width={width},height={height},fit=cover,quality=60" for width, height in links(markup)
    ]


def test_markup_of_a_crop_wider_than_the_original_has_the_width_of_the_rendition() -> None:
    assert links(URL_BUILDER.markup(DIGEST, image(600, 600), Transform(width=2000, height=1000, fit="cover"))) == [(320, 160), (600, 300)]


@pytest.mark.parametrize(
    ("widths", "steps"),
    [
        ([100], [(100, 75)]),
        ([200, 100], [(100, 75), (200, 150)]),
        ([200, 200, 100, 200], [(100, 75), (200, 150)]),
        ([100, 400, 500, 8192], [(100, 75), (400, 300)]),
        ([5000, 6000], [(400, 300)]),
        ([1], [(1, 1)]),
    ],
)
def test_markup_at_given_widths_has_each_once_and_nothing_enlarged(widths: list[int], steps: list[tuple[int, int]]) -> None:
    assert links(URL_BUILDER.markup(DIGEST, image(400, 300), Transform(), widths=widths)) == steps


def test_markup_in_given_formats_has_them_in_that_order_and_falls_back_to_the_last() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(), Transform(), formats=["webp", "png"])
    assert [source.type for source in markup.sources] == ["image/webp", "image/png"]
    assert markup.src.endswith(".png")
    alone = URL_BUILDER.markup(DIGEST, image(), Transform(), formats=["avif"])
    assert Tags(alone.picture).element("img")["src"] == alone.src
    assert [tag for tag, _ in Tags(alone.picture).tags] == ["picture", "img"]


@given(
    st.integers(1, 9_000),
    st.integers(1, 9_000),
    st.sampled_from(
        (
            Transform(),
            Transform(width=777),
            Transform(width=801, height=333),
            Transform(width=801, height=333, fit="cover"),
            Transform(width=801, height=333, fit="contain"),
            Transform(width=333, height=801, fit="fill"),
            Transform(width=333, height=801, fit="outside"),
        )
    ),
)
def test_markup_sizes_are_those_of_the_renditions(width: int, height: int, wanted: Transform) -> None:
    markup = URL_BUILDER.markup(DIGEST, image(width, height), wanted)
    for link in markup.sources[0].renditions:
        address = parse_address(link.url.encode("ascii"))[0]
        assert (link.width, link.height) == make_plan(width, height, parse_canonical(address.transform)).output_size
    assert [step[0] for step in links(markup)] == sorted({step[0] for step in links(markup)})


def test_markup_of_only_a_height_is_refused_with_a_remedy() -> None:
    with pytest.raises(BadTransformError) as caught:
        URL_BUILDER.markup(DIGEST, image(), Transform(height=500))
    assert caught.value.received == "height=500"
    assert caught.value.expected
    assert caught.value.remedy


def test_markup_at_a_width_that_makes_the_transform_too_high_is_refused() -> None:
    tall = Transform(width=100, height=8000, fit="cover")
    assert links(URL_BUILDER.markup(DIGEST, image(8000, 8192), tall, widths=[102])) == [(102, 8160)]
    with pytest.raises(BadTransformError) as caught:
        URL_BUILDER.markup(DIGEST, image(8000, 8192), tall, widths=[50, 103])
    assert caught.value.received == "8240"
    assert caught.value.remedy


def test_picture_of_a_small_photo_is_the_expected_html() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(400, 300), Transform(), sizes="(min-width: 60em) 50vw, 100vw", alt='A "red" boat & more')
    jxl, avif, webp, jpeg = ([link.url for link in source.renditions] for source in markup.sources)
    assert (
        markup.picture
        == f"""\
<picture>
  <source type="image/jxl" srcset="{jxl[0]} 320w, {jxl[1]} 400w" sizes="(min-width: 60em) 50vw, 100vw">
  <source type="image/avif" srcset="{avif[0]} 320w, {avif[1]} 400w" sizes="(min-width: 60em) 50vw, 100vw">
  <source type="image/webp" srcset="{webp[0]} 320w, {webp[1]} 400w" sizes="(min-width: 60em) 50vw, 100vw">
  <img src="{jpeg[1]}" srcset="{jpeg[0]} 320w, {jpeg[1]} 400w" sizes="(min-width: 60em) 50vw, 100vw" \
width="400" height="300" alt="A &quot;red&quot; boat &amp; more" loading="lazy" decoding="async">
</picture>"""
    )
    assert jpeg == [
        f"/i/v3/{DIGEST}/width=320/{SIGNER.sign(parse_address(jpeg[0].encode())[0]).rpartition('/')[2]}",
        f"/i/v3/{DIGEST}/width=640/{SIGNER.sign(parse_address(jpeg[1].encode())[0]).rpartition('/')[2]}",
    ]


@given(st.text(st.characters(codec="utf-8"), max_size=80), st.text(st.characters(codec="utf-8"), max_size=40))
def test_picture_with_any_alt_and_sizes_is_read_back_exactly(alt: str, sizes: str) -> None:
    markup = URL_BUILDER.markup(DIGEST, image(400, 300), Transform(), sizes=sizes, alt=alt)
    tags = Tags(markup.picture)
    assert [tag for tag, _ in tags.tags] == ["picture", "source", "source", "source", "img"]
    assert tags.text.strip() == ""
    assert tags.element("img")["alt"] == alt
    for source, (_, attributes) in zip(markup.sources, tags.tags[1:], strict=True):
        assert attributes["sizes"] == sizes
        assert attributes["srcset"] == source.srcset


def test_picture_is_lazy_and_as_wide_as_its_layout_by_default() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(400, 300), Transform())
    tags = Tags(markup.picture)
    assert [attributes["sizes"] for tag, attributes in tags.tags if tag != "picture"] == ["auto, 100vw"] * 4
    assert tags.element("img")["loading"] == "lazy"
    assert "fetchpriority" not in tags.element("img")
    assert markup.preload == ""


@pytest.mark.parametrize(
    ("sizes", "eager_sizes"),
    [
        ("auto, 100vw", "100vw"),
        ("50vw", "50vw"),
        ("auto", "100vw"),
        ("", "100vw"),
        ("AUTO,(min-width: 60em) 50vw, 100vw", "(min-width: 60em) 50vw, 100vw"),
        (" auto\n,\t50vw", "50vw"),
        ("auto,", "100vw"),
        ("automatic, 50vw", "automatic, 50vw"),
        ("50vw, auto", "50vw, auto"),
    ],
)
def test_picture_with_priority_is_eager_and_has_no_auto(sizes: str, eager_sizes: str) -> None:
    markup = URL_BUILDER.markup(DIGEST, image(400, 300), Transform(), sizes=sizes, priority=True)
    tags = Tags(markup.picture)
    assert [attributes["sizes"] for tag, attributes in tags.tags if tag != "picture"] == [eager_sizes] * 4
    assert (tags.element("img")["loading"], tags.element("img")["fetchpriority"]) == ("eager", "high")
    assert f'; imagesizes="{eager_sizes}"; ' in markup.preload


def test_preload_of_a_small_photo_is_the_expected_header() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(400, 300), Transform(), sizes="50vw", priority=True)
    narrow, wide = (link.url for link in markup.sources[0].renditions)
    assert markup.preload == (
        f'<{narrow}>; rel=preload; as=image; imagesrcset="{narrow} 320w, {wide} 400w"; imagesizes="50vw"; type="image/jxl"; '
        "fetchpriority=high"
    )


def test_preload_of_an_hdr_photo_has_a_link_for_each_kind_of_screen() -> None:
    photo = msgspec.structs.replace(image(400, 300), dynamic_range="high")
    markup = URL_BUILDER.markup(DIGEST, photo, Transform(dynamic_range="high"), priority=True)
    (standard,) = [source for source in markup.sources if source.type == "image/jxl" and not source.media]
    assert re.findall(r'imagesrcset="([^"]*)".*?type="([^"]*)"; media="([^"]*)"', markup.preload) == [
        (markup.sources[0].srcset, "image/jxl", "(dynamic-range: high)"),
        (standard.srcset, "image/jxl", "not all and (dynamic-range: high)"),
    ]


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_preload_with_any_sizes_is_one_line_of_ascii_whose_quotes_are_escaped(sizes: str) -> None:
    header = URL_BUILDER.markup(DIGEST, image(400, 300), Transform(), sizes=sizes, priority=True).preload
    assert re.fullmatch(r'<[!-~]+>; rel=preload; as=image(; \w+="([^"\\]|\\["\\])*"){3}; fetchpriority=high', header)
    assert re.fullmatch(r"[ -~]+", header)


def test_picture_has_the_size_of_its_largest_step_to_prevent_a_layout_shift() -> None:
    tags = Tags(URL_BUILDER.markup(DIGEST, image(), Transform()).picture)
    assert (tags.element("img")["width"], tags.element("img")["height"]) == ("2560", "1920")
    assert tags.element("img")["loading"] == "lazy"


@pytest.mark.parametrize(
    ("info", "text", "formats"),
    [
        (animation(), "full", ("avif", "webp", "gif")),
        (animation(), "lossless=true", ("webp", "gif")),
        (animation(), "width=100,round=9", ("avif", "webp", "gif")),
        (animation(), "frame=3", ("jxl", "avif", "webp", "png")),
        (image(), "lossless=true", ("webp", "png")),
        (image(), "round=max", ("jxl", "avif", "webp", "png")),
        (image(), "round=max,background=ffffff", ("jxl", "avif", "webp", "jpeg")),
        (image(), "round=max,background=ffffff80", ("jxl", "avif", "webp", "png")),
        (image(), "rotate=90", ("jxl", "avif", "webp", "jpeg")),
        (image(), "rotate=45", ("jxl", "avif", "webp", "png")),
        (image(), "rotate=45,background=blur", ("jxl", "avif", "webp", "jpeg")),
        (image(), "pad=3", ("jxl", "avif", "webp", "png")),
        (image(), "width=400,height=300,fit=contain", ("jxl", "avif", "webp", "jpeg")),
        (image(), "width=400,height=400,fit=contain", ("jxl", "avif", "webp", "png")),
        (image(alpha=True), "background=112233", ("jxl", "avif", "webp", "jpeg")),
        (drawing(), "full", ("jxl", "avif", "webp", "png")),
    ],
)
def test_default_formats_preserve_frames_and_transparency(info: ImageInfo, text: str, formats: tuple[Format, ...]) -> None:
    assert default_formats(info, parse(text)) == formats
    assert fallback_format(info, parse(text)) == formats[-1]


def test_default_formats_of_an_animation_in_the_first_pipeline_version_are_those_of_its_first_frame() -> None:
    assert default_formats(animation(), Transform(), animated=DEFAULTS[1].animated) == ("jxl", "avif", "webp", "png")


@pytest.mark.parametrize(("version", "formats"), [(1, ("webp", "gif")), (2, ("webp", "gif")), (3, ("avif", "webp", "gif"))])
def test_formats_of_an_animation_that_is_required_are_those_of_the_pipeline_version(version: int, formats: tuple[Format, ...]) -> None:
    assert default_formats(animation(), parse("animate=true"), animated=DEFAULTS[version].animated) == formats


def test_markup_of_a_drawing_has_every_step_of_the_ladder() -> None:
    assert [width for width, _ in links(URL_BUILDER.markup(DIGEST, drawing(), Transform()))] == list(LADDER_WIDTHS)


def test_markup_of_a_small_photo_that_may_grow_has_every_step_of_the_ladder() -> None:
    grown = URL_BUILDER.markup(DIGEST, image(200, 100), parse("width=400,enlarge=true"))
    assert links(grown) == [(width, width // 2) for width in LADDER_WIDTHS]


def test_markup_scales_every_length_with_the_width_so_that_each_step_looks_alike() -> None:
    markup = URL_BUILDER.markup(
        DIGEST, image(), parse("width=400,round=40,pad=20,blur=2,overlay=" + "b" * 32 + ":east:0.2:1:10:0"), widths=[200, 800]
    )
    half, double = (parse_address(link.url.encode())[0].transform for link in markup.sources[0].renditions)
    overlay = "overlay=" + "b" * 32 + ":east:0.2:1"
    assert half == f"width=200,blur=1,{overlay}:5,round=20,pad=10"
    assert double == f"width=800,blur=4,{overlay}:20,round=80,pad=40"
    assert [link.width for link in markup.sources[0].renditions] == [220, 880]


def test_markup_without_a_width_scales_lengths_from_the_size_of_the_original() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(1000, 500), parse("round=100"), widths=[500, 1000])
    assert [parse_address(link.url.encode())[0].transform for link in markup.sources[0].renditions] == [
        "width=500,round=50",
        "width=1000,round=100",
    ]


def test_markup_leaves_out_the_options_that_a_format_ignores() -> None:
    markup = URL_BUILDER.markup(DIGEST, image(), parse("quality=70,progressive=true"), widths=[320], formats=["webp", "png", "jpeg"])
    transforms_in_urls = [parse_address(source.renditions[0].url.encode())[0].transform for source in markup.sources]
    assert transforms_in_urls == ["width=320,quality=70", "width=320,progressive=true", "width=320,quality=70,progressive=true"]


@pytest.mark.parametrize(
    ("text", "image_format"), [("lossless=true", "jpeg"), ("animate=true", "jxl"), ("lossless=true,animate=true", "avif")]
)
def test_url_with_an_option_that_contradicts_the_format_is_refused(text: str, image_format: Format) -> None:
    with pytest.raises(BadTransformError) as caught:
        URL_BUILDER.url(DIGEST, image(), parse(text), image_format)
    assert caught.value.received == image_format


def test_markup_of_a_crop_outside_the_picture_is_refused() -> None:
    with pytest.raises(BadTransformError) as caught:
        URL_BUILDER.markup(DIGEST, image(400, 300), parse("crop=300:0:200:100"))
    assert caught.value.expected == "a part of 400 x 300 pixels"


def test_markup_of_an_hdr_photo_has_sources_for_screens_that_show_it_before_those_for_all() -> None:
    photo = msgspec.structs.replace(image(400, 300), dynamic_range="high")
    markup = URL_BUILDER.markup(DIGEST, photo, Transform(dynamic_range="high"))
    standard = URL_BUILDER.markup(DIGEST, photo, Transform())
    high = [source for source in markup.sources if source.media]
    assert markup.sources == [*high, *standard.sources]
    assert [source.type for source in high] == [
        source.type for source in standard.sources if source.type in {"image/jxl", "image/avif", "image/jpeg"}
    ]
    assert all("dynamic_range=high" in link.url for source in high for link in source.renditions)
    assert [link.width for link in high[-1].renditions] == [320, 400]
    assert markup.src == standard.src
    sources = [attributes for tag, attributes in Tags(markup.picture).tags if tag == "source"]
    assert [source.get("media") for source in sources] == ["(dynamic-range: high)"] * len(high) + [None] * (len(standard.sources) - 1)


def test_markup_of_a_photo_without_hdr_is_the_standard_one() -> None:
    assert URL_BUILDER.markup(DIGEST, image(400, 300), Transform(dynamic_range="high")) == URL_BUILDER.markup(
        DIGEST, image(400, 300), Transform()
    )


def test_markup_of_a_transparent_hdr_picture_has_no_high_source_without_transparency() -> None:
    drawing = msgspec.structs.replace(image(400, 300), alpha=True, dynamic_range="high")
    markup = URL_BUILDER.markup(DIGEST, drawing, Transform(dynamic_range="high"))
    assert "image/jpeg" not in {source.type for source in markup.sources}
    assert markup.sources[0].media


def test_markup_leaves_out_the_steps_that_need_too_much_memory_for_16_bits() -> None:
    limits = msgspec.structs.replace(LIMITS, codec_bytes=1_000 * 750 * FORMATS["avif"].encoder_bytes_per_pixel[0])
    builder = UrlBuilder(SIGNER, "", limits)
    photo = msgspec.structs.replace(image(1_000, 750), dynamic_range="high")
    markup = builder.markup(DIGEST, photo, Transform(dynamic_range="high"), formats=["avif"])
    assert [source.renditions[-1].width for source in markup.sources] == [640, 1_000]


NARROW = "(max-width: 40em)"
HDR = ImageInfo("jpeg", 640, 480, 1, alpha=False, needs_full_decode=False, dynamic_range="high")


def test_markup_with_art_direction_has_the_crops_first_and_their_sizes_on_their_sources() -> None:
    crop = Crop(NARROW, DIGEST, image(), parse("ratio=1:1"), "90vw")
    markup = URL_BUILDER.markup(DIGEST, image(), parse("ratio=16:9"), alt="A boat", art_direction=[crop])
    plain = URL_BUILDER.markup(DIGEST, image(), parse("ratio=16:9"), alt="A boat")
    tags = Tags(markup.picture)
    sources = [attributes for tag, attributes in tags.tags if tag == "source"]
    assert [source.get("media") for source in sources] == [NARROW] * 4 + [None] * 3
    assert [source["type"] for source in sources[:4]] == ["image/jxl", "image/avif", "image/webp", "image/jpeg"]
    for source in sources[:4]:
        # The shape of the crop, so that nothing on the page moves.
        assert (source["width"], source["height"], source["sizes"]) == ("2560", "2560", "90vw")
        assert source["srcset"] is not None
        assert "ratio=1:1" in source["srcset"]
    for source in sources[4:]:
        assert source.keys() == {"type", "srcset", "sizes"}
    assert tags.element("img") == Tags(plain.picture).element("img")
    assert markup.src == plain.src
    assert markup.sources[4:] == plain.sources


def test_art_direction_of_an_hdr_image_has_its_bright_sources_on_the_same_screens_first() -> None:
    transform = parse("dynamic_range=high")
    crops = [Crop("(a) or (b)", DIGEST, HDR, parse("ratio=1:1,dynamic_range=high")), Crop(NARROW, DIGEST, HDR, parse("ratio=2:1"))]
    markup = URL_BUILDER.markup(DIGEST, HDR, transform, art_direction=crops)
    conditions = list(dict.fromkeys(source.media for source in markup.sources))
    assert conditions == ["((a) or (b)) and (dynamic-range: high)", "(a) or (b)", NARROW, "(dynamic-range: high)", ""]
    assert [source.type for source in markup.sources[:3]] == ["image/jxl", "image/avif", "image/jpeg"]


def test_preload_of_art_direction_has_one_link_for_each_kind_of_screens() -> None:
    crops = [Crop(NARROW, DIGEST, image(), parse("ratio=1:1"), "auto, 90vw"), Crop("(width < 60em)", DIGEST, image(), parse("ratio=4:3"))]
    preload = URL_BUILDER.markup(DIGEST, image(), parse("ratio=16:9"), priority=True, art_direction=crops).preload
    links = preload.split(", </i/")
    assert [re.findall(r'imagesizes="([^"]*)"; type="image/jxl"(?:; media="([^"]*)")?', link) for link in links] == [
        [("90vw", NARROW)],
        [("100vw", f"(width < 60em) and (not {NARROW})")],
        [("100vw", f"(not {NARROW}) and (not (width < 60em))")],
    ]
    for link, ratio in zip(links, ("1:1", "4:3", "16:9"), strict=True):
        assert link.count(f"ratio={ratio}") == 7
