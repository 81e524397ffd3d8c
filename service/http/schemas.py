"""The bodies of the HTTP API: one Struct for each, with its limits, the descriptions of its members and examples.

Everything else is made from these Structs: the decoder and its error messages (`service.http.bodies`), and the JSON Schemas of the OpenAPI
description (`service.http.openapi`). A description is a sentence, or a noun phrase with a capital and a period.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from service.errors import Problem
from service.images.digest import DIGEST_EXAMPLE, DIGEST_PATTERN
from service.images.formats import FORMATS, Format, OriginalFormat
from service.images.info import Placeholder
from service.images.media_condition import MAX_MEDIA_CHARACTERS
from service.images.options import API_OPTIONS, MAX_SIDE_PIXELS, OPTIONS, DynamicRange
from service.images.picture import DEFAULT_SIZES, PictureSource
from service.images.transform import Transform
from service.settings.source_locations import SourceKind
from service.sources.source import SourceObject
from service.urls.source_url import MAX_OBJECT_PATH_CHARACTERS

# One step for each screen width that matters. Signing 32 steps in the three formats of a page takes about 10 ms.
MAX_WIDTHS = 32
MAX_URLS = 96
MAX_CROPS = 7
MAX_SIZES_CHARACTERS = 1_000
MAX_ALT_CHARACTERS = 2_000
MAX_NAME_CHARACTERS = 64

# RFC 9110 §4.1: servers should support URLs of at least 8,000 octets.
MAX_SOURCE_URL_CHARACTERS = 8_192

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_DIGESTS = 1_000

# How long an upload URL is valid: by default as long as somebody needs to choose a photo, at most a day.
DEFAULT_UPLOAD_SECONDS = 900
MAX_UPLOAD_SECONDS = 86_400

# A page of S3's own listing.
MAX_OBJECTS = 1_000

# The largest that JavaScript represents exactly.
MAX_SAFE_INTEGER = 2**53 - 1

_DEFAULTS = dict(zip(Transform.__struct_fields__, Transform.__struct_defaults__, strict=True))


def _default(key: str) -> dict[str, Any]:
    """Return the default of an option, if it is a value that a request may have. That of `fit` depends on `ratio`."""
    value = _DEFAULTS.get(key) if key != "fit" else None
    return {"default": value} if isinstance(value, (bool, float, str)) else {}


# What the type of `Options` does not say: `service.images.options` has the schema, the description and an example of each option.
_TRANSFORM_SCHEMA = {
    "additionalProperties": False,
    "properties": {
        key: {**option.schema, **_default(key), "description": option.help, "examples": [option.example]}
        for key, option in API_OPTIONS.items()
    },
}

Name: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME_CHARACTERS)]
Url: TypeAlias = Annotated[
    str,
    Meta(
        max_length=MAX_SOURCE_URL_CHARACTERS,
        title=f"a URL of at most {MAX_SOURCE_URL_CHARACTERS:,} characters",
        extra_json_schema={"format": "uri"},
    ),
]
# Longer than any name, so that the error for a text that is no name can suggest one.
ImageName: TypeAlias = Annotated[str, Meta(max_length=MAX_ALT_CHARACTERS)]
SourceName: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME_CHARACTERS)]
ObjectPath: TypeAlias = Annotated[str, Meta(max_length=MAX_OBJECT_PATH_CHARACTERS)]
_OBJECT_PATH_HELP = "The path of the image below the source's prefix, not percent-encoded."
AltText: TypeAlias = Annotated[str, Meta(max_length=MAX_ALT_CHARACTERS)]
UnitInterval: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Digest: TypeAlias = Annotated[str, Meta(pattern=f"^{DIGEST_PATTERN}$", title="a digest of 32 characters of a-z and 2-7")]
Cursor: TypeAlias = Annotated[str, Meta(pattern=f"^[0-9]{{13}}-{DIGEST_PATTERN}$", title='the cursor of a Link with rel="next"')]
Options: TypeAlias = Annotated[
    dict[Name, Any],
    Meta(
        max_length=len(API_OPTIONS),
        description=(
            f"The options of the rendition. In whatever order they are written, they are applied in this one: {', '.join(OPTIONS)}. "
            "`focal`, `dpr` and `trim` are resolved when the URL is made."
        ),
        extra_json_schema=_TRANSFORM_SCHEMA,
    ),
]
Variant: TypeAlias = Annotated[Name | None, Meta(description="A transform that DARKROOM_VARIANTS names. `transform` overrides it.")]


class ImageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a frontend needs to know of an image. Sizes are pixels of the upright original, `bytes` its size as uploaded."""

    digest: str
    format: str
    width: int
    height: int
    frames: int
    bytes: int
    alpha: bool
    dynamic_range: DynamicRange
    created: str
    alt: str
    name: Annotated[str, Meta(description="The name that URLs may end with; empty if the image has none.")]
    focal: tuple[float, float] | None
    warnings: Annotated[
        tuple[str, ...],
        Meta(description="Sentences that report what was removed from a drawing for safety, or is drawn differently.", max_length=16),
    ]
    placeholder: Placeholder
    src: str
    sources: list[PictureSource]
    picture: str


class ImageDocuments(msgspec.Struct, frozen=True):
    """One entry for each file of a multipart upload, in the order sent."""

    images: list[ImageDocument | Problem]


class ImagesPage(msgspec.Struct, frozen=True):
    """One page of the list of images, newest first."""

    images: list[ImageDocument]


class LookupResponse(msgspec.Struct, frozen=True):
    """The documents of the images that are stored, the digests of those that were taken down, and the largest upload in bytes."""

    images: list[ImageDocument]
    gone: list[str]
    max_upload_bytes: int


class UrlResponse(msgspec.Struct, frozen=True):
    """The URL of one rendition."""

    url: str


class SourceInfo(msgspec.Struct, frozen=True):
    """A source: its name, its kind, and whether its objects can be listed."""

    name: str
    kind: SourceKind
    listable: bool


class SourcesResponse(msgspec.Struct, frozen=True):
    """The sources of the server."""

    sources: list[SourceInfo]


class SourceObjects(msgspec.Struct, frozen=True):
    """One page of the objects in a bucket, in the order of their paths."""

    objects: list[SourceObject]


class UploadUrl(msgspec.Struct, frozen=True):
    """A URL that takes one upload, and when it expires."""

    url: str
    expires: str


class RequestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON body of a request."""

    examples: ClassVar[Mapping[str, object]]


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which page of the list of images to return."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="The largest number of images on the page.", examples=[20])] = DEFAULT_LIMIT
    cursor: Annotated[
        Cursor | UnsetType,
        Meta(
            description=(
                'The place where the page begins, from the `Link` with `rel="next"` of the page before. Without it, the page begins '
                "with the newest image."
            ),
            examples=[f"8210987654321-{DIGEST_EXAMPLE}"],
        ),
    ] = UNSET


class ObjectsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which page of the list of a source's objects to return."""

    limit: Annotated[int, Meta(ge=1, le=MAX_OBJECTS, description="The largest number of objects on the page.", examples=[MAX_OBJECTS])] = (
        MAX_OBJECTS
    )
    after: Annotated[
        ObjectPath,
        Meta(description="The path after which the page begins, as the `Link` of the page before has it.", examples=["2026/panda.jpg"]),
    ] = ""


class LookupRequest(RequestBody, frozen=True):
    """The images to look up."""

    examples = {"two": {"digests": [DIGEST_EXAMPLE, "k5x7q2abcdefghijklmnopqrstuvwxyz"]}}

    digests: Annotated[
        list[Digest],
        Meta(max_length=MAX_DIGESTS, description="The first 160 bits of the SHA-256 of each file, in lower-case base32."),
    ]


class IngestFromSource(RequestBody, frozen=True):
    """The image to fetch and store: `source` and `path`, or `url`."""

    examples = {
        "from a source": {"source": "shop", "path": "2026/panda.jpg"},
        "by its URL": {"url": "https://cms.example.com/uploads/panda.jpg"},
    }

    source: Annotated[SourceName | UnsetType, Meta(description="The name of a source in DARKROOM_SOURCES.")] = UNSET
    path: Annotated[ObjectPath | UnsetType, Meta(description=_OBJECT_PATH_HELP)] = UNSET
    url: Annotated[Url | UnsetType, Meta(description="The URL of an image below a source with https or http.")] = UNSET


class UploadUrlRequest(RequestBody, frozen=True):
    """The limits of an upload URL."""

    examples = {"for a photo": {"max_bytes": 20_000_000, "formats": ["jpeg", "png", "webp", "heic"], "seconds": 900}}

    max_bytes: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)] | None,
        Meta(description="The largest file in bytes, at most and by default DARKROOM_MAX_UPLOAD_BYTES."),
    ] = None
    formats: Annotated[
        list[OriginalFormat],
        Meta(
            max_length=len(get_args(OriginalFormat)),
            description="The formats that are accepted, which the content of the file decides. Empty for all.",
            extra_json_schema={"uniqueItems": True},
        ),
    ] = []
    seconds: Annotated[
        int, Meta(ge=1, le=MAX_UPLOAD_SECONDS, description="How long the URL is valid. The upload must be complete within that time.")
    ] = DEFAULT_UPLOAD_SECONDS


class CropRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the screens on which a media condition holds show in place of the image."""

    media: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_MEDIA_CHARACTERS,
            description=(
                "A media condition (Media Queries 4), without media types and commas: features in parentheses, joined by `and` or by `or`."
            ),
            examples=["(max-width: 40em)"],
        ),
    ]
    transform: Options = {}
    variant: Variant = None
    digest: Annotated[Digest | None, Meta(description="Another image, for these screens only.")] = None
    sizes: Annotated[
        str, Meta(max_length=MAX_SIZES_CHARACTERS, description="The `sizes` of these sources, by default that of the request.")
    ] = ""


class UrlsRequest(RequestBody, frozen=True):
    """The URLs to make: a ladder, or one URL if there is a `format`."""

    examples = {
        "a ladder": {
            "transform": {"width": 640, "height": 480, "fit": "cover", "gravity": "attention"},
            "widths": [320, 640, 1280],
            "formats": ["jxl", "avif", "webp", "jpeg"],
            "sizes": "(min-width: 60em) 40vw, 100vw",
            "alt": "A panda eats bamboo.",
        },
        "the first image of a page": {"sizes": "(min-width: 60em) 40vw, 100vw", "priority": True},
        "another crop on narrow screens": {
            "transform": {"ratio": "16:9"},
            "art_direction": [{"media": "(max-width: 40em)", "transform": {"ratio": "1:1", "gravity": "attention"}}],
        },
        "one URL": {"transform": {"width": 96, "height": 96, "fit": "cover", "round": "max", "dpr": 2}, "format": "webp"},
        "with the name of the image": {"transform": {"width": 640}, "format": "webp", "name": True},
    }

    transform: Options = {}
    variant: Variant = None
    widths: Annotated[
        list[Annotated[int, Meta(ge=1, le=MAX_SIDE_PIXELS)]],
        Meta(max_length=MAX_WIDTHS, description=f"The widths of the ladder in pixels; widths times formats are at most {MAX_URLS}."),
    ] = []
    formats: Annotated[
        list[Format],
        Meta(
            max_length=len(FORMATS),
            description="The formats of the ladder in the order of preference, the fallback last.",
            extra_json_schema={"uniqueItems": True},
        ),
    ] = []
    sizes: Annotated[
        str,
        Meta(
            max_length=MAX_SIZES_CHARACTERS,
            description=(
                "The `sizes` attribute of the `<picture>`. By default, a browser that knows `auto` uses the width at which the page shows "
                "the image, and others use the width of the window."
            ),
        ),
    ] = DEFAULT_SIZES
    alt: Annotated[AltText | None, Meta(description="An alternative text that replaces the image's own.")] = None
    priority: Annotated[
        bool,
        Meta(
            description=(
                "Load the image at once and before others, for the largest image in the first view of a page. `auto` is removed from "
                "`sizes`, because only lazy images can have it. The response has `preload`, the value of a `Link` header of the page."
            )
        ),
    ] = False
    name: Annotated[
        bool | ImageName | None,
        Meta(
            description=(
                "The name at the end of each URL, under which browsers save the picture: `true` for the image's own, `false` for none, or "
                "another one, with which URLs are always signed. By default, DARKROOM_URL_NAMES decides."
            )
        ),
    ] = None
    art_direction: Annotated[
        list[CropRequest],
        Meta(
            max_length=MAX_CROPS,
            description=(
                "Other crops, or other images, for some screens: the `<picture>` shows the first whose `media` applies, and `transform` on "
                f"all other screens. `widths`, `formats` and `priority` are for all of them, and there are at most {MAX_URLS} URLs."
            ),
        ),
    ] = []
    format: Annotated[Format | None, Meta(description="The format of one URL, in place of `widths` and `formats`.")] = None


class ImagePatch(RequestBody, frozen=True):
    """The changes to an image. Members that are left out stay as they are."""

    examples = {"all": {"focal": [0.3, 0.6], "alt": "A panda eats bamboo.", "name": "panda-eats-bamboo"}}

    focal: Annotated[
        tuple[UnitInterval, UnitInterval] | UnsetType | None,
        Meta(description="The focal point: x and y from the top left of the upright image; null to remove it."),
    ] = UNSET
    alt: Annotated[AltText | UnsetType, Meta(description="The alternative text: what the image shows, for people who cannot see it.")] = (
        UNSET
    )
    name: Annotated[
        ImageName | UnsetType,
        Meta(description="The name that URLs may end with: letters, digits, `-` and `_`, at most 80 characters. Empty to remove it."),
    ] = UNSET


class SourceUrlRequest(RequestBody, frozen=True):
    """The rendition of a source's image to make a URL of."""

    examples = {"for any browser": {"path": "2026/panda.jpg", "transform": {"width": 640, "height": 640, "fit": "cover"}}}

    path: Annotated[ObjectPath, Meta(description=_OBJECT_PATH_HELP)]
    transform: Options = {}
    variant: Variant = None
    format: Annotated[
        Format | Literal["auto"],
        Meta(description="The format of the rendition, or `auto` for the best one that the browser names in `Accept`."),
    ] = "auto"
