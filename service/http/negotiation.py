"""Content negotiation: the format that a client gets at a URL that ends in `.auto`, by the weights in `Accept` (RFC 9110 §12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from service.images.formats import FORMATS, Format

# Browsers send about 150 characters; a list of thousands of items takes a while to parse.
MAX_ACCEPT_CHARACTERS = 1_024

# The formats that a client must name to get, in our order of preference; a fallback needs no naming.
_NEGOTIATED: tuple[Format, ...] = ("jxl", "avif", "webp")
_FALLBACKS: tuple[Format, ...] = ("jpeg", "png", "gif")

# RFC 9110 §12.4.2. A weight without its zero (`.5`) is not valid, but its meaning is clear.
_WEIGHT = re.compile(r"(?:0(?:\.\d{0,3})?|\.\d{1,3}|1(?:\.0{0,3})?)")


def negotiated_extension(accept: str, formats: Sequence[Format]) -> str:
    """Return the extension of one of `formats`, which are in our order of preference, the fallback last.

    It is the format with the largest weight, and the first of several with the same weight. The fallback is returned even if the client
    does not accept it, because a picture serves every client better than an error.
    """
    *better, fallback = formats
    preferred = _preferred(_weights(accept), fallback)
    return FORMATS[next((image_format for image_format in preferred if image_format in better), fallback)].extension


def normalize_accept(accept: bytes) -> bytes:
    """Return a short text for everything in `Accept` that the choice of a format depends on: same text, same response."""
    weights = _weights(accept.decode("latin-1"))
    choices = [",".join(_preferred(weights, fallback)) for fallback in _FALLBACKS]
    return (choices[0] if len(set(choices)) == 1 else ";".join(choices)).encode("ascii")


def _preferred(weights: Mapping[str, float], fallback: Format) -> list[Format]:
    """Return the formats that a client prefers to `fallback`, best first.

    Only a format that the client names counts. `*/*` and `image/*` do not name one: browsers that show none of these formats send them too.
    """
    fallback_weight = _weight(weights, FORMATS[fallback].media_type)
    named = {image_format: weights.get(FORMATS[image_format].media_type, 0.0) for image_format in _NEGOTIATED}
    return sorted(
        (image_format for image_format, weight in named.items() if weight > 0 and weight >= fallback_weight),
        key=lambda image_format: -named[image_format],
    )


def _weight(weights: Mapping[str, float], media_type: str) -> float:
    """Return the weight of a media type: that of the most specific range that includes it."""
    return next((weights[media_range] for media_range in (media_type, "image/*", "*/*") if media_range in weights), 0.0)


def _weights(accept: str) -> dict[str, float]:
    """Return the weight of each media range in `Accept`; none if it is longer than any browser's.

    A range with parameters of its own matches none of our types, which have no parameters. A range whose weight is malformed is ignored.
    """
    if len(accept) > MAX_ACCEPT_CHARACTERS:
        return {}
    weights: dict[str, float] = {}
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        name, _, value = parameters[0].partition("=") if parameters else ("q", "", "1")
        if name.strip() == "q" and _WEIGHT.fullmatch(value.strip()):
            # The largest of several: a list that was joined from two headers may name a range twice.
            weights[media_range] = max(float(value), weights.get(media_range, 0.0))
    return weights
