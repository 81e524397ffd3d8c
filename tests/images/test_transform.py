import math
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadTransformError
from service.images.formats import FORMATS, Format
from service.images.options import (
    COMPASS,
    FITS,
    FLIPS,
    MAX_BYTES,
    MAX_EFFORT,
    MAX_FRAME,
    MAX_PAD_PIXELS,
    MAX_RATIO,
    MAX_SIDE_PIXELS,
    METADATA,
    MIN_BYTES,
    OPTIONS,
    PROFILES,
    STRATEGIES,
    FocalPoint,
    Overlay,
    Ratio,
    Region,
    Sides,
    format_value,
)
from service.images.transform import (
    DEFAULTS,
    FULL,
    PIPELINE_VERSION,
    Transform,
    for_format,
    for_url,
    from_options,
    parse,
    parse_canonical,
    scaled,
)
from service.urls.rendition_url import MAX_TRANSFORM_CHARACTERS

DIGEST = "k5x7q2abcdefghijklmnopqrstuvwxyz"

sides = st.integers(1, MAX_SIDE_PIXELS)
parts_of_one = st.integers(0, 10_000).map(lambda number: number / 10_000)
focal_points = st.builds(FocalPoint, parts_of_one, parts_of_one)


def decimals(least: float, most: float) -> st.SearchStrategy[float]:
    return st.integers(round(least * 10_000), round(most * 10_000)).map(lambda number: number / 10_000)


def within_hundred(pair: tuple[int, int]) -> tuple[float, float]:
    start, length = pair
    return start / 100, min(length, 10_000 - start) / 100


spans = st.tuples(st.integers(0, 9_999), st.integers(1, 10_000))
percent_regions = st.builds(
    lambda across, down: Region(across[0], down[0], across[1], down[1], percent=True),
    spans.map(within_hundred),
    spans.map(within_hundred),
)
whole = st.integers(0, 500_000).map(float)
pixel_regions = st.builds(Region, whole, whole, st.integers(1, 500_000).map(float), st.integers(1, 500_000).map(float))
lengths = st.integers(0, MAX_PAD_PIXELS)
offsets = st.integers(-MAX_PAD_PIXELS, MAX_PAD_PIXELS)
colors = st.from_regex(r"[0-9a-f]{6}([0-9a-e][0-9a-f])?", fullmatch=True)
overlays = st.builds(Overlay, st.just(DIGEST), st.sampled_from(COMPASS), decimals(0.01, 1), parts_of_one, offsets, offsets)

# A ratio makes of these no side that is too long.
modest = st.integers(1, MAX_SIDE_PIXELS // MAX_RATIO)
ratios = st.fractions(Fraction(1, MAX_RATIO), MAX_RATIO, max_denominator=10_000).map(lambda number: Ratio(*number.as_integer_ratio()))

BOXES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({}, optional={"width": sides, "height": sides}),
    st.fixed_dictionaries({"width": sides, "height": sides, "fit": st.sampled_from(["outside", "fill"]), "enlarge": st.booleans()}),
    st.fixed_dictionaries({"width": sides, "height": sides, "fit": st.just("contain"), "gravity": st.sampled_from(COMPASS)}),
    st.fixed_dictionaries({"ratio": ratios, "fit": st.sampled_from(["cover", "contain", "fill"])}),
    st.fixed_dictionaries({"width": modest, "ratio": ratios, "fit": st.just("contain"), "enlarge": st.booleans()}),
    st.fixed_dictionaries({"height": modest, "ratio": ratios, "fit": st.just("cover"), "gravity": st.sampled_from(COMPASS)}),
    st.fixed_dictionaries(
        {"width": sides, "height": sides, "fit": st.just("cover"), "gravity": st.sampled_from((*COMPASS, *STRATEGIES)) | focal_points}
    ),
)
FRAMES = st.fixed_dictionaries({}, optional={"frame": st.integers(0, MAX_FRAME)}) | st.just({"animate": True})
COLORS = st.fixed_dictionaries({}, optional={"saturation": decimals(0, 4), "profile": st.sampled_from(PROFILES)}) | st.just(
    {"grayscale": True}
)
LOSSES = st.fixed_dictionaries(
    {}, optional={"quality": st.integers(1, 100) | st.just("auto"), "max_bytes": st.integers(MIN_BYTES, MAX_BYTES)}
) | st.just({"lossless": True})
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "crop": percent_regions | pixel_regions,
        "trim": decimals(0, 255),
        "rotate": decimals(0, 359.9999),
        "flip": st.sampled_from(FLIPS),
        "brightness": decimals(0, 4),
        "contrast": decimals(0, 4),
        "gamma": decimals(0.1, 10),
        "blur": decimals(0.3, 250),
        "sharpen": decimals(0.3, 10),
        "overlay": overlays,
        "round": sides | st.just("max"),
        "pad": st.builds(Sides, lengths, lengths, lengths, lengths),
        "background": colors | st.just("blur"),
        "metadata": st.sampled_from(METADATA),
        "effort": st.integers(0, MAX_EFFORT),
        "progressive": st.booleans(),
    },
)
HIGH_RANGE = st.fixed_dictionaries(
    {"dynamic_range": st.just("high")},
    optional={
        "crop": percent_regions | pixel_regions,
        "trim": decimals(0, 255),
        "rotate": st.sampled_from([90.0, 180.0, 270.0]),
        "flip": st.sampled_from(FLIPS),
        "profile": st.sampled_from(PROFILES),
        "metadata": st.sampled_from(METADATA),
        "quality": st.integers(1, 100) | st.just("auto"),
        "max_bytes": st.integers(MIN_BYTES, MAX_BYTES),
        "effort": st.integers(0, MAX_EFFORT),
        "progressive": st.booleans(),
    },
)


def merged(*groups: dict[str, Any]) -> Transform:
    return Transform(**{key: value for group in groups for key, value in group.items()})


transforms = st.builds(merged, FRAMES, OTHERS, BOXES, COLORS, LOSSES) | st.builds(
    merged, HIGH_RANGE, BOXES.filter(lambda box: box.get("fit") != "contain")
)


def test_strategies_of_these_tests_draw_every_option() -> None:
    drawn = {"animate", "crop", "frame", "grayscale", "lossless", "max_bytes", "profile", "quality", "saturation", "dynamic_range"}
    drawn |= {"width", "height", "ratio", "fit", "gravity", "enlarge", "trim", "rotate", "flip", "brightness", "contrast", "gamma"}
    drawn |= {"blur", "sharpen", "overlay", "round", "pad", "background", "metadata", "effort", "progressive"}
    assert drawn == set(OPTIONS) == {field.name for field in msgspec.structs.fields(Transform)}
    assert list(OPTIONS) == [field.name for field in msgspec.structs.fields(Transform)]


def refusal(text: str) -> BadTransformError:
    with pytest.raises(BadTransformError) as caught:
        parse(text)
    return caught.value


CANONICAL_FORMS = [
    (Transform(), "full"),
    (Transform(width=1), "width=1"),
    (Transform(height=8192), "height=8192"),
    (Transform(width=640, height=480), "width=640,height=480"),
    (Transform(width=640, height=480, fit="outside"), "width=640,height=480,fit=outside"),
    (Transform(width=640, height=480, fit="fill", quality=42), "width=640,height=480,fit=fill,quality=42"),
    (Transform(width=640, height=480, fit="cover"), "width=640,height=480,fit=cover"),
    (Transform(width=640, height=480, fit="cover", gravity="attention"), "width=640,height=480,fit=cover,gravity=attention"),
    (Transform(width=2, height=3, fit="contain", gravity="southwest"), "width=2,height=3,fit=contain,gravity=southwest"),
    (Transform(width=2, height=3, fit="cover", gravity=FocalPoint(0.3, 0.6)), "width=2,height=3,fit=cover,gravity=focal:0.3:0.6"),
    (Transform(width=2, height=3, fit="cover", gravity=FocalPoint(0.0, 1.0)), "width=2,height=3,fit=cover,gravity=focal:0:1"),
    (
        Transform(width=2, height=3, fit="cover", gravity=FocalPoint(0.0001, 0.9999)),
        "width=2,height=3,fit=cover,gravity=focal:0.0001:0.9999",
    ),
    (Transform(ratio=Ratio(16, 9), fit="cover"), "ratio=16:9"),
    (Transform(width=640, ratio=Ratio(191, 100), fit="cover", gravity="north"), "width=640,ratio=191:100,gravity=north"),
    (Transform(height=640, ratio=Ratio(1, 1), fit="contain"), "height=640,ratio=1:1,fit=contain"),
    (Transform(quality=100), "quality=100"),
    (Transform(quality="auto", max_bytes=20_000), "quality=auto,max_bytes=20000"),
    (Transform(frame=0), "frame=0"),
    (Transform(animate=True), "animate=true"),
    (Transform(crop=Region(10, 20, 640, 480)), "crop=10:20:640:480"),
    (Transform(crop=Region(12.5, 0, 50, 100, percent=True)), "crop=12.5p:0p:50p:100p"),
    (Transform(trim=0.0), "trim=0"),
    (Transform(rotate=90.0, flip="vertical"), "rotate=90,flip=vertical"),
    (Transform(width=9, enlarge=True), "width=9,enlarge=true"),
    (
        Transform(brightness=1.25, contrast=0.0, gamma=2.2, saturation=0.5),
        "brightness=1.25,contrast=0,gamma=2.2,saturation=0.5",
    ),
    (Transform(grayscale=True, blur=0.3, sharpen=1.0), "grayscale=true,blur=0.3,sharpen=1"),
    (Transform(overlay=Overlay(DIGEST)), f"overlay={DIGEST}"),
    (Transform(overlay=Overlay(DIGEST, "southeast")), f"overlay={DIGEST}:southeast"),
    (Transform(overlay=Overlay(DIGEST, x=4, y=-8)), f"overlay={DIGEST}:center:0.25:1:4:-8"),
    (Transform(overlay=Overlay(DIGEST, opacity=0.5)), f"overlay={DIGEST}:center:0.25:0.5"),
    (Transform(round="max"), "round=max"),
    (Transform(pad=Sides(5, 5, 5, 5)), "pad=5"),
    (Transform(pad=Sides(5, 6, 5, 6)), "pad=5:6"),
    (Transform(pad=Sides(5, 6, 7, 6)), "pad=5:6:7"),
    (Transform(pad=Sides(5, 6, 7, 8)), "pad=5:6:7:8"),
    (Transform(background="ff8800"), "background=ff8800"),
    (Transform(background="ff880080"), "background=ff880080"),
    (Transform(width=640, dynamic_range="high", quality=80), "width=640,dynamic_range=high,quality=80"),
    (
        Transform(profile="p3", metadata="copyright", lossless=True, effort=0, progressive=True),
        "profile=p3,metadata=copyright,lossless=true,effort=0,progressive=true",
    ),
]


@pytest.mark.parametrize(("transform", "text"), CANONICAL_FORMS, ids=[text for _, text in CANONICAL_FORMS])
def test_transform_and_its_canonical_form_match_the_table(transform: Transform, text: str) -> None:
    assert transform.canonical_form == text
    assert parse(text) == transform
    assert parse_canonical(text) == transform


@given(transforms)
def test_canonical_form_of_a_transform_is_parsed_to_the_same_transform(transform: Transform) -> None:
    assert parse(transform.canonical_form) == transform
    assert parse_canonical(transform.canonical_form).canonical_form == transform.canonical_form


@given(transforms, transforms)
def test_transforms_with_the_same_canonical_form_are_equal(one: Transform, other: Transform) -> None:
    assert (one.canonical_form == other.canonical_form) == (one == other)


@given(transforms)
def test_canonical_form_fits_into_a_url(transform: Transform) -> None:
    assert 0 < len(transform.canonical_form) <= MAX_TRANSFORM_CHARACTERS
    assert set(transform.canonical_form) <= set("abcdefghijklmnopqrstuvwxyz0123456789.:=,_-")


@given(transforms, st.data())
def test_another_form_of_a_transform_is_parsed_to_the_same_and_is_not_canonical(transform: Transform, data: st.DataObject) -> None:
    pairs = [] if transform.canonical_form == FULL else transform.canonical_form.split(",")
    if transform.flip == "none" and data.draw(st.booleans()):
        pairs.append("flip=none")
    if transform.fit == "inside" and data.draw(st.booleans()):
        pairs.append("fit=inside")
    if transform.gravity == "center" and data.draw(st.booleans()):
        pairs.append("gravity=center")
    pairs = [loosely(pair, data) for pair in data.draw(st.permutations(pairs))]
    text = ",".join(pairs) or FULL
    assert parse(text) == transform
    if text == transform.canonical_form:
        assert parse_canonical(text) == transform
    else:
        with pytest.raises(BadTransformError) as caught:
            parse_canonical(text)
        assert caught.value.expected == transform.canonical_form
        assert caught.value.remedy


def loosely(pair: str, data: st.DataObject) -> str:
    """Return a pair whose numbers may be written in a longer form."""
    key, _, value = pair.partition("=")
    # A number has at most nine digits.
    if key in {"width", "height", "effort", "frame", "max_bytes"} and len(value) < 8:
        value = data.draw(st.sampled_from(("", "0", "00"))) + value + data.draw(st.sampled_from(("", ".0", ".000")))
    return f"{key}={value}"


BAD = [
    # text, beginning of the detail, part of expected, received, beginning of the remedy
    ("", "A part of", "key=value", "", "Write"),
    ("width", "A part of", "key=value", "width", "Write"),
    ("width=", "A part of", "key=value", "width=", "Write"),
    ("=640", "The transform has", "width, height, ratio, fit, gravity", "", "Leave"),
    ("width=640,", "A part of", "key=value", "", "Write"),
    (",width=640", "A part of", "key=value", "", "Write"),
    ("width=640 ", "A part of", "key=value", "width=640 ", "Write"),
    ("width=6 40", "A part of", "key=value", "width=6 40", "Write"),
    ("width==640", "A part of", "key=value", "width==640", "Write"),
    ("width=+640", "A part of", "key=value", "width=+640", "Write"),
    ("width=640,width=640", "`width` is given twice", "each key once", "width=640,width=640", "Leave one"),
    ("width=640,height=1,width=320", "`width` is given twice", "each key once", "width=640,height=1,width=320", "Leave one"),
    ("full,width=640", "A part of", "or `full`", "full", "Write"),
    ("width=640,full", "A part of", "or `full`", "full", "Write"),
    ("widht=640", "The transform has", "width, height, ratio, fit, gravity", "widht", "Did you mean `width`?"),
    ("Width=640", "The transform has", "width, height, ratio, fit, gravity", "Width", "Did you mean `width`?"),
    ("w=640", "The transform has", "width, height, ratio, fit, gravity", "w", "Leave it out"),
    ("dpr=2", "The transform has", "width, height, ratio, fit, gravity", "dpr", "Leave it out"),
    ("format=webp", "The transform has", "width, height, ratio, fit, gravity", "format", "Leave it out"),
    ("width=0", "`width` is out", "from 1 to 8192", "0", "width=1 to width=8192"),
    ("width=8193", "`width` is out", "from 1 to 8192", "8193", "width=1 to width=8192"),
    ("height=0", "`height` is out", "from 1 to 8192", "0", "height=1 to height=8192"),
    ("height=8193", "`height` is out", "from 1 to 8192", "8193", "height=1 to height=8192"),
    ("width=-640", "`width` is out", "from 1 to 8192", "-640", "width=1"),
    ("width=640.5", "`width` is out", "a whole number of pixels", "640.5", "width=1"),
    ("width=640.", "`width` is out", "a whole number of pixels", "640.", "width=1"),
    ("width=.640", "`width` is out", "a whole number of pixels", ".640", "width=1"),
    ("width=6.4e2", "`width` is out", "a whole number of pixels", "6.4e2", "width=1"),
    ("width=1E2", "`width` is out", "a whole number of pixels", "1E2", "width=1"),
    ("width=0x10", "`width` is out", "a whole number of pixels", "0x10", "width=1"),
    ("width=1_000", "`width` is out", "a whole number of pixels", "1_000", "width=1"),
    ("width=inf", "`width` is out", "a whole number of pixels", "inf", "width=1"),
    ("width=NaN", "`width` is out", "a whole number of pixels", "NaN", "width=1"),
    ("width=640px", "`width` is out", "a whole number of pixels", "640px", "width=1"),
    ("width=" + "9" * 60, "`width` is out", "from 1 to 8192", "9" * 60, "width=1"),
    ("width=640.0000000001", "`width` is out", "a whole number of pixels", "640.0000000001", "width=1"),
    ("quality=0", "`quality` is out", "from 1 to 100", "0", "quality=1 to quality=100"),
    ("quality=101", "`quality` is out", "from 1 to 100", "101", "quality=1 to quality=100"),
    ("fit=crop,width=1,height=1", "`fit` has", "inside, outside, cover, contain, fill", "crop", "Use one"),
    ("fit=Cover,width=1,height=1", "`fit` has", "inside, outside, cover, contain, fill", "Cover", "Did you mean `cover`?"),
    ("fit=cover", "`fit=cover` needs a box", "width and height", "fit=cover", "Give both"),
    ("width=640,fit=cover", "`fit=cover` needs a box", "width and height", "width=640,fit=cover", "Give both"),
    ("height=640,fit=contain", "`fit=contain` needs a box", "width and height", "height=640,fit=contain", "Give both"),
    ("width=640,fit=fill", "`fit=fill` needs a box", "width and height", "width=640,fit=fill", "Give both"),
    ("width=640,fit=outside", "`fit=outside` needs a box", "width and height", "width=640,fit=outside", "Give both"),
    ("gravity=north", "`gravity` acts", "fit=cover or fit=contain", "gravity=north", "Leave `gravity` out"),
    ("width=1,height=1,gravity=attention", "`gravity` acts", "fit=cover", "width=1,height=1,gravity=attention", "Leave `gravity`"),
    ("width=1,height=1,fit=fill,gravity=north", "`gravity` acts", "fit=cover", "width=1,height=1,fit=fill,gravity=north", "Leave"),
    ("width=1,height=1,fit=outside,gravity=east", "`gravity` acts", "fit=cover", "width=1,height=1,fit=outside,gravity=east", "Leave"),
    ("width=1,height=1,fit=contain,gravity=attention", "With fit=contain", "center, north", "attention", "Use a compass"),
    ("width=1,height=1,fit=contain,gravity=focal:0.1:0.2", "With fit=contain", "center, north", "focal:0.1:0.2", "Use a compass"),
    ("width=1,height=1,fit=cover,gravity=nort", "`gravity` has", "focal:<x>:<y>", "nort", "Did you mean `north`?"),
    ("width=1,height=1,fit=cover,gravity=focal", "`gravity` has", "focal:<x>:<y>", "focal", "Use one"),
    ("width=1,height=1,fit=cover,gravity=focal:", "The focal point", "each from 0 to 1", "", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:0.5", "The focal point", "each from 0 to 1", "0.5", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:0.5:", "The focal point", "each from 0 to 1", "0.5:", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:0:0:0", "The focal point", "each from 0 to 1", "0:0:0", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:1.0001:0", "The focal point", "each from 0 to 1", "1.0001:0", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:-0.1:0", "The focal point", "each from 0 to 1", "-0.1:0", "Use for example"),
    (
        "width=1,height=1,fit=cover,gravity=focal:0.12345:0",
        "The focal point",
        "at most four decimals",
        "0.12345:0",
        "Use for example",
    ),
    ("width=1,height=1,fit=cover,gravity=focal:1e-1:0", "The focal point", "each from 0 to 1", "1e-1:0", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:nan:0", "The focal point", "each from 0 to 1", "nan:0", "Use for example"),
    ("ratio=0:1", "`ratio` is invalid", "<width>:<height>, from 1:100 to 100:1", "0:1", "Use for example ratio=16:9"),
    ("ratio=101:1", "`ratio` is invalid", "from 1:100 to 100:1", "101:1", "Use for example"),
    ("ratio=1:100.1", "`ratio` is invalid", "from 1:100 to 100:1", "1:100.1", "Use for example"),
    ("ratio=16:0", "`ratio` is invalid", "from 1:100 to 100:1", "16:0", "Use for example"),
    ("ratio=16:-9", "`ratio` is invalid", "from 1:100 to 100:1", "16:-9", "Use for example"),
    ("ratio=16:9:1", "`ratio` is invalid", "<width>:<height>", "16:9:1", "Use for example"),
    ("ratio=wide", "`ratio` is invalid", "<width>:<height>", "wide", "Use for example"),
    ("ratio=1.00001:1", "`ratio` is invalid", "<width>:<height>", "1.00001:1", "Use for example"),
    ("ratio=999999.9999:999999.9998", "`ratio` is invalid", "no number above 1000000", "999999.9999:999999.9998", "Use for example"),
    ("width=9,height=9,ratio=1:1", "`ratio` contradicts `width`", "at most one of", "width=9,height=9,ratio=1:1", "Leave one"),
    ("ratio=1:1,fit=inside", "`ratio` contradicts `fit=inside`", "fit=cover", "fit=inside", "Leave"),
    ("width=9,ratio=1:1,fit=outside", "`ratio` contradicts `fit=outside`", "fit=cover", "fit=outside", "Leave"),
    ("width=100,ratio=1:100", "A side of the rendition", "at most 8192 pixels", "10000", "smaller or wider box"),
    ("height=8192,ratio=2:1", "A side of the rendition", "at most 8192 pixels", "16384", "smaller or wider box"),
    ("ratio=1:1,enlarge=true", "`enlarge` needs a size", "width or height", "ratio=1:1,enlarge=true", "Give one"),
    ("frame=-1", "`frame` is out", "from 0 to 9999", "-1", "frame=0"),
    ("animate=yes", "`animate` has", "true, false", "yes", "Use one"),
    ("animate=true,frame=0", "`animate` and `frame` contradict", "one of them", "frame=0,animate=true", "Leave"),
    ("crop=0:0:10", "`crop` is invalid", "left, top, width and height", "0:0:10", "crop=10p"),
    ("crop=0:0:0:10", "`crop` is invalid", "left, top, width and height", "0:0:0:10", "crop=10p"),
    ("crop=-1:0:10:10", "`crop` is invalid", "left, top, width and height", "-1:0:10:10", "crop=10p"),
    ("crop=0.5:0:10:10", "`crop` is invalid", "whole pixels", "0.5:0:10:10", "crop=10p"),
    ("crop=0p:0p:50p:50", "`crop` is invalid", "all four in percent", "0p:0p:50p:50", "crop=10p"),
    ("crop=60p:0p:50p:50p", "`crop` is invalid", "within the picture", "60p:0p:50p:50p", "crop=10p"),
    ("trim=256", "`trim` is out", "from 0 to 255", "256", "trim=0 to trim=255"),
    ("rotate=361", "`rotate` is out", "from -360 to 360", "361", "rotate=-360"),
    ("rotate=0.00001", "`rotate` is out", "at most four decimals", "0.00001", "rotate=-360"),
    ("flip=both", "`flip` has", "none, horizontal, vertical", "both", "Use one"),
    ("enlarge=true", "`enlarge` needs a size", "width or height", "enlarge=true", "Give one"),
    ("brightness=4.1", "`brightness` is out", "from 0 to 4", "4.1", "brightness=0 to brightness=4"),
    ("contrast=-1", "`contrast` is out", "from 0 to 4", "-1", "contrast=0"),
    ("gamma=0", "`gamma` is out", "from 0.1 to 10", "0", "gamma=0.1"),
    ("saturation=5", "`saturation` is out", "from 0 to 4", "5", "saturation=0"),
    ("grayscale=true,saturation=2", "`grayscale` and `saturation` contradict", "one of them", "saturation=2,grayscale=true", "Leave"),
    ("grayscale=true,profile=p3", "`grayscale` and `profile` contradict", "one of them", "grayscale=true,profile=p3", "Leave"),
    ("blur=0.2", "`blur` is out", "from 0.3 to 250", "0.2", "blur=0.3"),
    ("sharpen=11", "`sharpen` is out", "from 0.3 to 10", "11", "sharpen=0.3"),
    ("overlay=logo", "`overlay` is invalid", "<digest>", "logo", "Upload the overlay"),
    (f"overlay={DIGEST}:attention", "`overlay` has", "center, north", "attention", "Use one"),
    (f"overlay={DIGEST}:center:0", "`overlay` is out", "from 0.01 to 1", "0", "overlay=0.01"),
    (f"overlay={DIGEST}:center:1:2", "`overlay` is out", "from 0 to 1", "2", "overlay=0"),
    (f"overlay={DIGEST}:center:1:1:4097", "`overlay` is out", "from -4096 to 4096", "4097", "overlay=-4096"),
    (f"overlay={DIGEST}:center:1:1:1:1:1", "`overlay` is invalid", "<digest>", f"{DIGEST}:center:1:1:1:1:1", "Upload the overlay"),
    ("round=0", "`round` is out", "from 1 to 8192", "0", "round=1"),
    ("round=most", "`round` is out", "from 1 to 8192", "most", "round=1"),
    ("pad=4097", "`pad` is out", "from 0 to 4096", "4097", "pad=0"),
    ("pad=1:2:3:4:5", "`pad` is invalid", "one to four", "1:2:3:4:5", "pad=20"),
    ("background=red", "`background` is invalid", "rrggbb", "red", "background=ff8800"),
    ("background=ff88000", "`background` is invalid", "rrggbb", "ff88000", "background=ff8800"),
    ("profile=adobe", "`profile` has", "srgb, p3, keep", "adobe", "Use one"),
    ("dynamic_range=hdr", "`dynamic_range` has", "standard, high", "hdr", "Use one"),
    (
        f"overlay={DIGEST},dynamic_range=high",
        "`dynamic_range=high` and `overlay` contradict",
        "only options for size",
        f"overlay={DIGEST},dynamic_range=high",
        "Leave out `overlay`, or `dynamic_range`",
    ),
    *(
        (
            f"{options},dynamic_range=high",
            f"`dynamic_range=high` and {name} contradict",
            "only options",
            f"{options},dynamic_range=high",
            f"Leave out {name}",
        )
        for options, name in [
            ("animate=true", "`animate`"),
            ("rotate=45", "a `rotate` by no right angle"),
            ("width=9,height=9,fit=contain", "`fit=contain`"),
            *(
                (option, f"`{option.partition('=')[0]}`")
                for option in ("blur=1", "brightness=2", "round=max", "pad=1", "background=fff000")
            ),
        ]
    ),
    ("metadata=gps", "`metadata` has", "none, copyright, all", "gps", "Use one"),
    ("quality=best", "`quality` is out", "from 1 to 100", "best", "quality=1"),
    ("max_bytes=127", "`max_bytes` is out", "from 128 to", "127", "max_bytes=128"),
    ("lossless=true,quality=80", "`lossless` and `quality` contradict", "one of them", "quality=80,lossless=true", "Leave"),
    ("lossless=true,max_bytes=900", "`lossless` and `max_bytes` contradict", "one of them", "max_bytes=900,lossless=true", "Leave"),
    ("effort=7", "`effort` is out", "from 0 to 6", "7", "effort=0 to effort=6"),
    ("progressive=1", "`progressive` has", "true, false", "1", "Use one"),
]


@pytest.mark.parametrize(("text", "detail", "expected", "received", "remedy"), BAD, ids=[row[0] or "empty" for row in BAD])
def test_bad_transform_is_refused_with_expected_received_and_remedy(
    text: str, detail: str, expected: str, received: str, remedy: str
) -> None:
    error = refusal(text)
    assert error.status_code == 400
    assert error.detail.startswith(detail)
    assert error.expected is not None
    assert expected in error.expected
    assert error.received == received
    assert error.remedy is not None
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("width=0640", "width=640"),
        ("width=640.0", "width=640"),
        ("height=480,width=640", "width=640,height=480"),
        ("width=640,fit=inside", "width=640"),
        ("width=640,gravity=center", "width=640"),
        ("width=1,height=1,fit=cover,gravity=center", "width=1,height=1,fit=cover"),
        ("width=1,height=1,fit=cover,gravity=focal:0.30:0.6", "width=1,height=1,fit=cover,gravity=focal:0.3:0.6"),
        ("width=1,height=1,fit=cover,gravity=focal:00.3:1.0", "width=1,height=1,fit=cover,gravity=focal:0.3:1"),
        ("width=1,height=1,fit=cover,gravity=focal:0.123400000:0", "width=1,height=1,fit=cover,gravity=focal:0.1234:0"),
        ("fit=inside", "full"),
        ("animate=false", "frame=0"),
        ("rotate=-90", "rotate=270"),
        ("rotate=360", "full"),
        ("pad=5:5:5:5", "pad=5"),
        ("pad=0", "full"),
        ("background=F80", "background=ff8800"),
        ("background=f80f", "background=ff8800"),
        ("background=ff8800ff", "background=ff8800"),
        ("brightness=1.0,lossless=false,progressive=false", "full"),
        (f"overlay={DIGEST}:center:0.25:1:0:0", f"overlay={DIGEST}"),
        ("width=1,height=1,fit=cover,gravity=focal:-0:0", "width=1,height=1,fit=cover,gravity=focal:0:0"),
    ],
)
def test_transform_in_another_form_is_refused_as_not_canonical(text: str, canonical: str) -> None:
    assert parse(text) == parse_canonical(canonical)
    with pytest.raises(BadTransformError) as caught:
        parse_canonical(text)
    assert (caught.value.expected, caught.value.received) == (canonical, text)


@given(st.text(max_size=60))
def test_parse_of_any_text_returns_a_transform_or_raises_bad_transform(text: str) -> None:
    try:
        transform = parse(text)
    except BadTransformError as refused:
        error = refused
    else:
        assert parse(transform.canonical_form) == transform
        return
    assert error.expected
    assert error.remedy


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "full"),
        ({"width": None, "height": None, "fit": None, "gravity": None, "quality": None}, "full"),
        ({"width": 640}, "width=640"),
        ({"width": 640.0}, "width=640"),
        ({"width": "640"}, "width=640"),
        ({"quality": 42, "width": 640}, "width=640,quality=42"),
        (
            {"width": 640, "height": 480, "fit": "cover", "gravity": "focal:0.25:0.5"},
            "width=640,height=480,fit=cover,gravity=focal:0.25:0.5",
        ),
        ({"width": 9, "height": 9, "fit": "cover", "focal": [0.25, 0.5]}, "width=9,height=9,fit=cover,gravity=focal:0.25:0.5"),
        ({"width": 9, "height": 9, "fit": "cover", "focal": "0.25, 0.5"}, "width=9,height=9,fit=cover,gravity=focal:0.25:0.5"),
        ({"crop": [10, 20, 30, 40]}, "crop=10:20:30:40"),
        ({"crop": ["10%", "20%", "30%", "40%"]}, "crop=10p:20p:30p:40p"),
        ({"crop": "10%,20%,30%,40%"}, "crop=10p:20p:30p:40p"),
        ({"ratio": "16:9"}, "ratio=16:9"),
        ({"ratio": "32 / 18", "width": 640, "fit": "cover"}, "width=640,ratio=16:9"),
        ({"ratio": [1.91, 1], "fit": "contain"}, "ratio=191:100,fit=contain"),
        ({"ratio": 1.5, "height": 40, "dpr": 2}, "height=80,ratio=3:2"),
        ({"pad": 5, "background": "#FF8800"}, "pad=5,background=ff8800"),
        ({"pad": [1, 2, 3, 4]}, "pad=1:2:3:4"),
        ({"enlarge": True, "width": 9, "progressive": False}, "width=9,enlarge=true"),
        ({"overlay": {"digest": DIGEST, "gravity": "north", "y": 8}}, f"overlay={DIGEST}:north:0.25:1:0:8"),
        ({"overlay": f"{DIGEST}:north"}, f"overlay={DIGEST}:north"),
        ({"width": 100, "dpr": 2}, "width=200"),
        (
            {"width": 101, "height": 33, "dpr": 1.5, "blur": 1, "round": 7, "pad": [1, 2, 3, 4]},
            "width=152,height=50,blur=1.5,round=11,pad=2:3:5:6",
        ),
        ({"overlay": {"digest": DIGEST, "x": 3, "y": -3}, "round": "max", "dpr": 2}, f"overlay={DIGEST}:center:0.25:1:6:-6,round=max"),
        ({"blur": 0.3, "dpr": 0.5}, "blur=0.3"),
    ],
)
def test_from_options_of_json_members_returns_their_transform(options: dict[str, object], text: str) -> None:
    assert from_options(options).canonical_form == text


@pytest.mark.parametrize(
    ("options", "received"),
    [
        ({"width": True}, "true"),
        ({"width": [640]}, "[640]"),
        ({"pad": [640, True]}, "[640, True]"),
        ({"width": {"px": 640}}, "{'px': 640}"),
        ({"width": 640.5}, "640.5"),
        ({"width": 1e300}, "1e+300"),
        ({"width": math.inf}, "inf"),
        ({"width": math.nan}, "nan"),
        ({"width": 10**20}, "1" + "0" * 20),
        ({"width": ""}, ""),
        ({"width": "640,height=480"}, "640,height=480"),
        ({"width": "640\n"}, "640\\n"),
        ({"width": "\N{FULLWIDTH DIGIT SIX}"}, "\\uff16"),
        ({"fit": 1}, "1"),
        ({"fit": "cover\0"}, "cover\\x00"),
        ({"": 1}, ""),
        ({"crop": 1}, "1"),
        ({"dpr": 5}, "5"),
        ({"width": 8192, "dpr": 2}, "16384"),
        ({"focal": [0.1, 0.2], "gravity": "north"}, "both"),
        ({"overlay": {"digest": DIGEST, "size": 2}}, "size"),
        ({"overlay": {"gravity": "north"}}, ":north:0.25:1:0:0"),
        ({"overlay": {"digest": [DIGEST, None]}}, f"['{DIGEST}', None]"),
    ],
    ids=repr,
)
def test_from_options_of_a_member_that_fits_no_option_is_refused(options: dict[str, object], received: str) -> None:
    with pytest.raises(BadTransformError) as caught:
        from_options(options)
    assert caught.value.received == received
    assert caught.value.expected
    assert caught.value.remedy


def test_from_options_overrides_the_preset() -> None:
    card = parse("width=640,height=480,fit=cover,quality=70")
    assert from_options({}, card) == card
    assert (
        from_options({"quality": 50, "gravity": "north"}, card).canonical_form == "width=640,height=480,fit=cover,gravity=north,quality=50"
    )
    assert from_options({"dpr": 2}, card).canonical_form == "width=1280,height=960,fit=cover,quality=70"
    with pytest.raises(BadTransformError):
        from_options({"lossless": True}, card)


@given(transforms)
def test_from_options_of_the_canonical_values_of_a_transform_is_that_transform(transform: Transform) -> None:
    assert from_options({key: format_value(value) for key, value in transform.options().items()}) == transform


@given(transforms, st.fractions(Fraction(1, 10), 4, max_denominator=100))
def test_scaled_transform_has_a_canonical_form_and_scaled_lengths(transform: Transform, factor: Fraction) -> None:
    box = {name: max(1, math.floor(side * factor + Fraction(1, 2))) for name in ("width", "height") if (side := getattr(transform, name))}
    if any(side >= MAX_SIDE_PIXELS + Fraction(1, 2) for side in msgspec.structs.replace(transform, **box).box if side is not None):
        with pytest.raises(BadTransformError, match="would be too long"):
            scaled(transform, factor)
        return
    larger = scaled(transform, factor)
    assert parse(larger.canonical_form) == larger
    for before, after in ((transform.width, larger.width), (transform.height, larger.height)):
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert after == max(1, math.floor(before * factor + Fraction(1, 2)))
    assert (larger.crop, larger.rotate, larger.quality) == (transform.crop, transform.rotate, transform.quality)


@given(transforms)
def test_transform_scaled_by_one_is_unchanged(transform: Transform) -> None:
    assert scaled(transform, Fraction(1)) == transform


@given(transforms, st.sampled_from(list(FORMATS)))
def test_transform_for_a_format_has_only_options_with_an_effect_or_is_refused(transform: Transform, image_format: Format) -> None:
    contradicts = transform.dynamic_range == "high" and image_format not in {"jxl", "avif", "jpeg"}
    contradicts |= transform.lossless and image_format in {"jpeg", "gif"}
    contradicts |= transform.animate and image_format not in {"webp", "gif", "avif"}
    contradicts |= transform.animate and image_format == "avif" and (transform.lossless or transform.dynamic_range == "high")
    if contradicts:
        with pytest.raises(BadTransformError, match="contradicts the format"):
            for_format(transform, image_format)
        return
    used = for_format(transform, image_format)
    assert for_format(used, image_format) == used
    left_out = set(transform.options()) - set(used.options())
    assert left_out <= {"avif": {"progressive"}, "webp": {"progressive"}, "jpeg": set(), "png": {"quality", "lossless"}}.get(
        image_format, {"quality", "progressive", "metadata", "profile"}
    )


@pytest.mark.parametrize(
    ("text", "image_format", "expected"),
    [
        ("full", "webp", "quality=78"),
        ("width=640", "avif", "width=640,quality=55"),
        ("width=640,effort=2,progressive=true", "avif", "width=640,quality=55,effort=2"),
        ("width=640", "jpeg", "width=640"),
        ("width=640", "png", "width=640"),
        ("width=640,quality=30", "webp", "width=640,quality=30"),
        ("quality=auto", "webp", "quality=auto"),
        ("max_bytes=20000", "webp", "max_bytes=20000"),
        ("lossless=true", "webp", "lossless=true"),
        ("dynamic_range=high", "avif", "dynamic_range=high"),
    ],
)
def test_transform_in_new_urls_has_the_servers_quality_unless_it_decides_its_loss(text: str, image_format: Format, expected: str) -> None:
    assert for_url(parse(text), image_format, {"avif": 55, "webp": 78}).canonical_form == expected


def test_defaults_have_a_row_for_the_current_version_and_a_quality_for_every_format() -> None:
    assert PIPELINE_VERSION in DEFAULTS
    for defaults in DEFAULTS.values():
        assert set(defaults.quality) == set(FORMATS)
        assert all(1 <= quality <= 100 for quality in defaults.quality.values())


def test_fits_are_the_five_documented_ones() -> None:
    assert set(FITS) == {"inside", "outside", "cover", "contain", "fill"}
