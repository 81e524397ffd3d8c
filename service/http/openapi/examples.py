"""Examples of responses, made of the same Structs as the responses themselves."""

from __future__ import annotations

import msgspec

from service.errors import Problem, ServiceError, UnsupportedFormatError
from service.http.schemas import (
    ImageDocument,
    ImagesPage,
    LookupResponse,
    SourceInfo,
    SourceObjects,
    SourcesResponse,
    UploadUrl,
    UrlResponse,
)
from service.images.digest import DIGEST_EXAMPLE
from service.images.info import Placeholder
from service.images.picture import Markup, PictureSource, RenditionLink, for_media, preload
from service.images.transform import PIPELINE_VERSION
from service.library.takedowns import TakenDown
from service.ops.health import Report
from service.rendering.protocol import Sandbox
from service.sources.source import SourceObject

SIGNATURE = "em2px3a6njtmrp2qwwi7fotkia"


def problem_example(error: type[ServiceError]) -> object:
    """Return an example of a problem document of a kind."""
    meaning = (error.__doc__ or "").partition("\n")[0]
    return msgspec.to_builtins(Problem(error.type_uri(), error.title, error.status_code, meaning, remedy=error.help))


def _edge_problem(status: int, title: str, detail: str, **members: str) -> dict[str, object]:
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}


def _rendition_url(transform: str, extension: str) -> str:
    return f"/i/v{PIPELINE_VERSION}/{DIGEST_EXAMPLE}/{transform}/{SIGNATURE}.{extension}"


def _source(media_type: str, extension: str) -> PictureSource:
    links = [RenditionLink(width, height, _rendition_url(f"width={width}", extension)) for width, height in ((320, 480), (640, 960))]
    return PictureSource(media_type, ", ".join(f"{link.url} {link.width}w" for link in links), links)


MARKUP = Markup(
    src=_rendition_url("width=640", "jpg"),
    sources=[_source("image/jxl", "jxl"), _source("image/avif", "avif"), _source("image/webp", "webp"), _source("image/jpeg", "jpg")],
    picture='<picture>\n  <source type="image/jxl" srcset="…" sizes="auto, 100vw">\n  …\n</picture>',
)
PRIORITY_MARKUP = Markup(
    src=MARKUP.src,
    sources=MARKUP.sources,
    picture='<picture>\n  <source type="image/jxl" srcset="…" sizes="(min-width: 60em) 40vw, 100vw">\n  …\n</picture>',
    preload=preload(MARKUP.sources, "(min-width: 60em) 40vw, 100vw"),
)
ART_DIRECTION_MARKUP = Markup(
    src=MARKUP.src,
    sources=[*for_media(MARKUP.sources, "(max-width: 40em)"), *MARKUP.sources],
    picture='<picture>\n  <source media="(max-width: 40em)" type="image/jxl" srcset="…" sizes="auto, 100vw" width="640" height="960">\n  …'
    "\n</picture>",
)
DOCUMENT = ImageDocument(
    digest=DIGEST_EXAMPLE,
    format="jpeg",
    width=640,
    height=960,
    frames=1,
    bytes=209_540,
    alpha=False,
    dynamic_range="standard",
    created="2026-11-25T12:00:00Z",
    alt="A panda eats bamboo.",
    name="panda-eats-bamboo",
    warnings=(),
    focal=(0.3, 0.6),
    placeholder=Placeholder(
        thumbhash="FtkFDQTPdjtlBol6qW1HVRQ/gvhm",
        data_url="data:image/webp;base64,UklGRg…",
        color="#0f350f",
        palette=["#0f350f", "#8a7f6d"],
    ),
    src=MARKUP.src,
    sources=MARKUP.sources,
    picture=MARKUP.picture,
)
DOCUMENTS = {"images": [DOCUMENT, problem_example(UnsupportedFormatError)]}
PAGE = ImagesPage([DOCUMENT])
LOOKUP = LookupResponse([DOCUMENT], gone=[], max_upload_bytes=67_108_864)
URL = UrlResponse(_rendition_url("width=640,height=480,fit=cover,gravity=attention", "webp"))
SOURCE_URL = UrlResponse(f"/from/shop/2026/panda.jpg/width=640,height=640,fit=cover/{SIGNATURE}.auto")
SOURCES = SourcesResponse([SourceInfo("shop", "s3", listable=True), SourceInfo("cms", "https", listable=False)])
OBJECTS = SourceObjects([SourceObject("2026/panda.jpg", 209_540), SourceObject("2026/Größe 1.png", 18_230)])
UPLOAD_TICKET = f"1795694400.20000000.jpeg-png-webp-heic.mzxw6ytboi4dqnrt.{SIGNATURE}"
UPLOAD_URL = UploadUrl(f"/v1/uploads/{UPLOAD_TICKET}", "2026-11-26T12:00:00Z")
TAKEN_DOWN = TakenDown(DIGEST_EXAMPLE, "2026-11-25T12:00:00Z", renditions=18, cdn="purged")
HEALTHY = Report(
    "ok",
    "0.3.0",
    region="ams",
    machine="148ed193b12389",
    regions=["ams", "iad"],
    sandbox=Sandbox(landlock=7, seccomp=True, no_new_privs=True),
)
DRAINING = Report("unavailable", "0.3.0", reason="draining: this process is about to end")

# Responses of the edge.
MISDIRECTED = _edge_problem(
    421,
    "Belongs to another region",
    "This request must be handled in the region ams. The body is larger than 960000 bytes, the most that can be replayed. "
    "Send it again with the header fly-prefer-region: ams.",
    prefer_region="ams",
)
RANGE_NOT_SATISFIABLE = _edge_problem(
    416, "Range not satisfiable", "The response has 52340 bytes, counted from 0, and the requested range has none of them."
)
