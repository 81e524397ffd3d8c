"""The format at a URL that ends in `.auto`: weights in `Accept` are compared, and equivalent headers share one stored response."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.negotiation import MAX_ACCEPT_CHARACTERS, negotiated_extension, normalize_accept
from service.images.formats import FORMATS, Format

PHOTO: list[Format] = ["avif", "webp", "jpeg"]
LISTS: list[list[Format]] = [
    PHOTO, ["avif", "webp", "png"], ["webp", "gif"], ["webp", "png"], ["webp", "jpeg"], ["avif", "jpeg"], ["jpeg"], ["gif"],
]  # fmt: skip

RANGES = ["image/avif", "image/webp", "image/jpeg", "image/png", "image/gif", "image/*", "*/*", "text/html", "image/svg+xml"]
WEIGHTS = {
    "": 1.0,
    ";q=1": 1.0,
    ";q=1.000": 1.0,
    "; q=0.9": 0.9,
    ";Q=0.5": 0.5,
    " ;q=0.001": 0.001,
    ";q=.5": 0.5,
    ";q=0": 0.0,
    ";q=0.000": 0.0,
}


@pytest.mark.parametrize(
    ("accept", "extension"),
    [
        # Chromium, Firefox, Safari, and an old browser that shows neither.
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "avif"),
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "avif"),
        ("image/webp,image/avif,image/jxl,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "avif"),
        ("image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "jpg"),
        # The larger weight wins, equal weights leave the choice to us.
        ("image/webp;q=1, image/avif;q=0.5", "webp"),
        ("image/webp;q=0.5, image/avif;q=0.5", "avif"),
        ("image/avif;q=0.3, image/webp;q=0.2", "avif"),
        # The weight of the fallback counts as well, by name or by the most specific range.
        ("image/webp;q=0.5, image/jpeg", "jpg"),
        ("image/webp;q=0.5, image/avif;q=0.4, */*", "jpg"),
        ("image/avif;q=0.5, image/jpeg;q=0.4, */*", "avif"),
        ("image/avif;q=0.5, image/*;q=0.6, */*;q=0.1", "jpg"),
        ("image/avif;q=0.1, image/jpeg;q=0", "avif"),
        # A weight of 0 excludes a format, and a range names none.
        ("image/avif;q=0, image/webp", "webp"),
        ("image/avif;q=0.0,image/webp;q=0.000", "jpg"),
        ("image/*", "jpg"),
        ("*/*", "jpg"),
        ("", "jpg"),
        ("image/jpeg;q=0, image/png;q=0", "jpg"),
        # Details of the grammar.
        ("IMAGE/WEBP ; Q=0.7", "webp"),
        (",, image/webp ,", "webp"),
        ("image/avif;q=.5,image/webp;q=.6", "webp"),
        ("image/avif;q=2, image/webp;q=0.1", "webp"),
        ("image/avif;q=-1, image/webp;q=0.1", "webp"),
        ("image/avif;q=a, image/webp", "webp"),
        ("image/avif;q=, image/webp", "webp"),
        ("image/avif;q=0.5;extension=1, image/webp;q=0.4", "avif"),
        ("image/avif;profile=x, image/webp", "webp"),
        ("image/avif;q=0.1, image/webp;q=0.5, image/avif", "avif"),
        ("image/webp" + "," * MAX_ACCEPT_CHARACTERS, "jpg"),
    ],
)  # fmt: skip
def test_format_with_the_largest_weight_is_chosen_and_then_our_first(accept: str, extension: str) -> None:
    assert negotiated_extension(accept, PHOTO) == extension


def chosen(weights: dict[str, float], formats: list[Format]) -> str:
    """Return the extension that RFC 9110 §12.5.1 requires, and our order where it leaves a choice."""
    *better, fallback = [FORMATS[image_format] for image_format in formats]
    of_fallback = weights.get(fallback.media_type, weights.get("image/*", weights.get("*/*", 0)))
    best, best_weight = fallback, of_fallback
    # From the last to the first, so that an equal weight replaces a format of ours that comes later.
    for traits in reversed(better):
        weight = weights.get(traits.media_type, 0)
        if weight > 0 and weight >= best_weight:
            best, best_weight = traits, weight
    return best.extension


accepts = st.dictionaries(st.sampled_from(RANGES), st.sampled_from(list(WEIGHTS)), max_size=len(RANGES))


@given(accepts)
def test_any_header_gives_the_format_of_the_largest_weight(accept: dict[str, str]) -> None:
    header = ", ".join(media_range + weight for media_range, weight in accept.items())
    weights = {media_range: WEIGHTS[weight] for media_range, weight in accept.items()}
    for formats in LISTS:
        assert negotiated_extension(header, formats) == chosen(weights, formats)


def test_headers_of_one_normal_form_give_the_same_formats_and_there_are_few() -> None:
    choices: dict[bytes, list[str]] = {}
    for weights in product(["", "q=0", "q=0.3", "q=0.6", "q=1"], repeat=5):
        ranges = ("image/avif", "image/webp", "image/jpeg", "image/png", "*/*")
        accept = ",".join(f"{media_range};{weight}" for media_range, weight in zip(ranges, weights, strict=True) if weight)
        normal = normalize_accept(accept.encode("ascii"))
        assert len(normal) <= 64
        choice = [negotiated_extension(accept, formats) for formats in LISTS]
        assert choices.setdefault(normal, choice) == choice
    assert len(choices) <= 64


@given(st.binary(max_size=200))
def test_any_bytes_give_a_format(accept: bytes) -> None:
    normalize_accept(accept)
    assert negotiated_extension(accept.decode("latin-1"), PHOTO) in {"avif", "webp", "jpg"}
