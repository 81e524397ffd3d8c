import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.address import MAX_TRANSFORM_CHARACTERS, PIPELINE_VERSION
from service.errors import BadTransformError
from service.transform import (
    COMPASS,
    DEFAULTS,
    FITS,
    FORMATS,
    FULL,
    MAX_SIDE_PIXELS,
    STRATEGIES,
    FocalPoint,
    Transform,
    from_options,
    parse,
    parse_canonical,
)

sides = st.integers(1, MAX_SIDE_PIXELS)
parts_of_one = st.integers(0, 10_000).map(lambda number: number / 10_000)
focal_points = st.builds(FocalPoint, parts_of_one, parts_of_one)
qualities = st.none() | st.integers(1, 100)


def placed(fit: str, gravity: st.SearchStrategy[Any]) -> st.SearchStrategy[Transform]:
    return st.builds(Transform, width=sides, height=sides, fit=st.just(fit), gravity=gravity, quality=qualities)


transforms = st.one_of(
    st.builds(Transform, width=st.none() | sides, height=st.none() | sides, quality=qualities),
    placed("outside", st.just("center")),
    placed("fill", st.just("center")),
    placed("contain", st.sampled_from(COMPASS)),
    placed("cover", st.sampled_from((*COMPASS, *STRATEGIES)) | focal_points),
)


def refusal(spelling: str) -> BadTransformError:
    with pytest.raises(BadTransformError) as caught:
        parse(spelling)
    return caught.value


SPELLINGS = [
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
    (Transform(quality=100), "quality=100"),
]


@pytest.mark.parametrize(("transform", "spelling"), SPELLINGS, ids=[spelling for _, spelling in SPELLINGS])
def test_transform_is_spelled_and_read_as_the_table_says(transform: Transform, spelling: str) -> None:
    assert transform.spelling == spelling
    assert parse(spelling) == transform
    assert parse_canonical(spelling) == transform


@given(transforms)
def test_transform_spelled_and_parsed_is_the_same_transform(transform: Transform) -> None:
    assert parse(transform.spelling) == transform
    assert parse_canonical(transform.spelling).spelling == transform.spelling


@given(transforms, transforms)
def test_transforms_with_one_spelling_are_one_transform(one: Transform, other: Transform) -> None:
    assert (one.spelling == other.spelling) == (one == other)


@given(transforms)
def test_spelling_fits_into_an_address(transform: Transform) -> None:
    assert 0 < len(transform.spelling) <= MAX_TRANSFORM_CHARACTERS
    assert set(transform.spelling) <= set("abcdefghijklmnopqrstuvwxyz0123456789.:=,")


@given(transforms, st.data())
def test_another_spelling_of_a_transform_is_read_alike_and_is_not_canonical(transform: Transform, data: st.DataObject) -> None:
    pairs = [] if transform.spelling == FULL else transform.spelling.split(",")
    if transform.fit == "inside" and data.draw(st.booleans()):
        pairs.append("fit=inside")
    if transform.gravity == "center" and data.draw(st.booleans()):
        pairs.append("gravity=center")
    pairs = [loosely(pair, data) for pair in data.draw(st.permutations(pairs))]
    spelling = ",".join(pairs) or FULL
    assert parse(spelling) == transform
    if spelling == transform.spelling:
        assert parse_canonical(spelling) == transform
    else:
        with pytest.raises(BadTransformError) as caught:
            parse_canonical(spelling)
        assert caught.value.expected == transform.spelling
        assert caught.value.remedy


def loosely(pair: str, data: st.DataObject) -> str:
    """Return a pair with its numbers perhaps written in a longer way."""
    key, _, value = pair.partition("=")
    if key in {"width", "height", "quality"}:
        value = data.draw(st.sampled_from(("", "0", "00"))) + value + data.draw(st.sampled_from(("", ".0", ".000")))
    return f"{key}={value}"


BAD = [
    # what stands there, the beginning of what is said, what was expected, what came, what helps
    ("", "A part of", "key=value", "", "Write"),
    ("width", "A part of", "key=value", "width", "Write"),
    ("width=", "A part of", "key=value", "width=", "Write"),
    ("=640", "The transform has", "width, height, fit, gravity, quality", "", "Leave"),
    ("width=640,", "A part of", "key=value", "", "Write"),
    (",width=640", "A part of", "key=value", "", "Write"),
    ("width=640 ", "A part of", "key=value", "width=640 ", "Write"),
    ("width=6 40", "A part of", "key=value", "width=6 40", "Write"),
    ("width==640", "A part of", "key=value", "width==640", "Write"),
    ("width=+640", "A part of", "key=value", "width=+640", "Write"),
    ("width=640,width=640", "`width` stands twice", "each key once", "width=640,width=640", "Leave one"),
    ("width=640,height=1,width=320", "`width` stands twice", "each key once", "width=640,height=1,width=320", "Leave one"),
    ("full,width=640", "A part of", "or `full`", "full", "Write"),
    ("width=640,full", "A part of", "or `full`", "full", "Write"),
    ("widht=640", "The transform has", "width, height, fit, gravity, quality", "widht", "Did you mean `width`?"),
    ("Width=640", "The transform has", "width, height, fit, gravity, quality", "Width", "Did you mean `width`?"),
    ("w=640", "The transform has", "width, height, fit, gravity, quality", "w", "Leave it out"),
    ("format=webp", "The transform has", "width, height, fit, gravity, quality", "format", "Leave it out"),
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
    ("width=1,height=1,fit=cover,gravity=focal:", "The focal point", "each 0 to 1", "focal:", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:0.5", "The focal point", "each 0 to 1", "focal:0.5", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:0.5:", "The focal point", "each 0 to 1", "focal:0.5:", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:0:0:0", "The focal point", "each 0 to 1", "focal:0:0:0", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:1.0001:0", "The focal point", "each 0 to 1", "focal:1.0001:0", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:-0.1:0", "The focal point", "each 0 to 1", "focal:-0.1:0", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:-0:0", "The focal point", "each 0 to 1", "focal:-0:0", "Use for example"),
    (
        "width=1,height=1,fit=cover,gravity=focal:0.12345:0",
        "The focal point",
        "at most four decimals",
        "focal:0.12345:0",
        "Use for example",
    ),
    ("width=1,height=1,fit=cover,gravity=focal:1e-1:0", "The focal point", "each 0 to 1", "focal:1e-1:0", "Use for example"),
    ("width=1,height=1,fit=cover,gravity=focal:nan:0", "The focal point", "each 0 to 1", "focal:nan:0", "Use for example"),
]


@pytest.mark.parametrize(("spelling", "detail", "expected", "received", "remedy"), BAD, ids=[row[0] or "empty" for row in BAD])
def test_bad_transform_is_told_what_was_expected_what_came_and_what_helps(
    spelling: str, detail: str, expected: str, received: str, remedy: str
) -> None:
    error = refusal(spelling)
    assert error.status_code == 400
    assert error.detail.startswith(detail)
    assert error.expected is not None
    assert expected in error.expected
    assert error.received == received
    assert error.remedy is not None
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("spelling", "canonical"),
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
    ],
)
def test_transform_in_another_spelling_is_read_but_refused_where_the_canonical_one_is_needed(spelling: str, canonical: str) -> None:
    assert parse(spelling) == parse_canonical(canonical)
    with pytest.raises(BadTransformError) as caught:
        parse_canonical(spelling)
    assert (caught.value.expected, caught.value.received) == (canonical, spelling)


@given(st.text(max_size=60))
def test_transform_of_any_text_is_read_or_refused_and_never_raises_anything_else(spelling: str) -> None:
    try:
        transform = parse(spelling)
    except BadTransformError as refused:
        error = refused
    else:
        assert parse(transform.spelling) == transform
        return
    assert error.expected
    assert error.remedy


@pytest.mark.parametrize(
    ("options", "spelling"),
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
    ],
)
def test_from_options_of_json_members_is_their_transform(options: dict[str, object], spelling: str) -> None:
    assert from_options(options).spelling == spelling


@pytest.mark.parametrize(
    ("options", "received"),
    [
        ({"width": True}, "True"),
        ({"width": False}, "False"),
        ({"width": [640]}, "[640]"),
        ({"width": {"px": 640}}, "{'px': 640}"),
        ({"gravity": ["focal", 0.1, 0.2], "fit": "cover", "width": 1, "height": 1}, "['focal', 0.1, 0.2]"),
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
        ({"crop": 1}, "crop"),
    ],
    ids=repr,
)
def test_from_options_of_a_member_that_fits_no_option_is_refused(options: dict[str, object], received: str) -> None:
    with pytest.raises(BadTransformError) as caught:
        from_options(options)
    assert caught.value.received == received
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("value", [True, [640], {"px": 640}], ids=repr)
def test_from_options_of_neither_a_number_nor_a_string_says_that_one_is_needed(value: object) -> None:
    with pytest.raises(BadTransformError) as caught:
        from_options({"width": value})
    assert caught.value.expected == "a number or a string"


@given(transforms)
def test_from_options_of_what_a_transform_lists_is_that_transform(transform: Transform) -> None:
    options = {key: f"focal:{value.x}:{value.y}" if isinstance(value, FocalPoint) else value for key, value in transform.options().items()}
    assert from_options(options) == transform


def test_defaults_have_a_row_for_the_version_of_new_addresses_and_a_quality_for_every_format() -> None:
    assert PIPELINE_VERSION in DEFAULTS
    for defaults in DEFAULTS.values():
        assert set(defaults.quality) == set(FORMATS)
        assert all(1 <= quality <= 100 for quality in defaults.quality.values())


def test_fits_are_the_five_of_the_documentation() -> None:
    assert set(FITS) == {"inside", "outside", "cover", "contain", "fill"}
