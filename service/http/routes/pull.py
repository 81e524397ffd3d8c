"""`/pull/…`: redirects to the rendition of what a remote source has at the moment, and `/v1/pull`, which makes these URLs."""

from __future__ import annotations

from litestar import Request, Response, get, post
from litestar.datastructures import State

from service.errors import BadRequestError
from service.http import headers
from service.http.auth import BearerAuth, require_pull
from service.http.schemas import PullRequest, UrlResponse
from service.http.transforms import resolve_transform, resolve_variant
from service.http.validation import read_json
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS
from service.images.transform import PIPELINE_VERSION, for_format, from_options, parse
from service.library.renditions import Renditions, digests
from service.ops.regions import require_primary
from service.pull.sources import Sources
from service.settings.sections import Settings
from service.urls.rendition_url import AUTO, MAX_URL_CHARACTERS, PullUrl, RenditionUrl, base64url, parse_pull_url
from service.urls.signing import Signer, UrlBuilder


@get("/pull/{rest:path}", include_in_schema=False)
async def get_pull(
    request: Request[object, object, State],
    *,
    signer: Signer,
    url_builder: UrlBuilder,
    sources: Sources | None,
    renditions: Renditions,
    settings: Settings,
    rest: str,  # noqa: ARG001 - Litestar requires it; the raw path is parsed instead
) -> Response[bytes]:
    """Redirect to the rendition of what the source has, with the stored focal point and `trim` resolved now.

    The source's image is ingested, which only the region with every original does.
    """
    pull_url, signature = parse_pull_url(request.scope["raw_path"])
    signer.verify(pull_url, signature)
    transform = parse(pull_url.transform)
    if request.scope["query_string"]:
        return Response(b"", status_code=308, headers=headers.redirect_headers(pull_url.path(signature)))
    pull_sources = require_pull(sources)
    require_primary(settings)
    found = await pull_sources.pull(pull_url.url)
    document = found.document
    transform = await resolve_transform(document, transform, renditions)
    if pull_url.extension != AUTO:
        transform = (await renditions.resolve(document.info, transform, FORMAT_OF_EXTENSION[pull_url.extension])).transform
    target = RenditionUrl(PIPELINE_VERSION, document.digest, transform.canonical_form, pull_url.extension)
    fields = headers.pull_headers(url_builder.sign(target), digests(target, transform), found.fresh_seconds)
    return Response(b"", status_code=302, headers=fields)


@post("/v1/pull", summary="Make a URL of a remote source's rendition", tags=["images"], status_code=200)
async def create_pull_url(
    request: Request[object, object, State],
    *,
    auth: BearerAuth,
    url_builder: UrlBuilder,
    sources: Sources | None,
    settings: Settings,
) -> Response[UrlResponse]:
    """Return a URL that always redirects to a rendition of what the source has at that moment; nothing is fetched yet.

    `format` is one of a rendition's formats, or `auto` for the best one that the browser names in `Accept`. The scope is `ingest`.
    """
    auth.require(request, "ingest")
    wanted = await read_json(request, PullRequest)
    url = require_pull(sources).normalize(wanted.url)
    if len(base64url(url)) > MAX_URL_CHARACTERS:
        raise BadRequestError(
            "The source's URL is too long to be part of another URL.",
            expected=f"a URL of at most {MAX_URL_CHARACTERS * 3 // 4} bytes",
            received=f"{len(url.encode())} bytes",
            remedy="Use a shorter URL, or upload the image with POST /v1/images.",
        )
    transform = from_options(wanted.transform, resolve_variant(wanted.variant, settings))
    extension = AUTO
    if wanted.format != "auto":
        extension = FORMATS[wanted.format].extension
        transform = for_format(transform, wanted.format)
    return Response(UrlResponse(url_builder.sign(PullUrl(url, transform.canonical_form, extension))), headers=headers.document_headers())
