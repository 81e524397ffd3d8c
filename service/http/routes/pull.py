"""`/pull/…`: what a remote source has now, as a redirect to an immutable rendition."""

from __future__ import annotations

from litestar import Request, Response, get, post
from litestar.datastructures import State

from service.errors import BadRequestError
from service.http import headers
from service.http.bodies import json_body
from service.http.routes.images import Access, OneUrl, PullRequest, allowed, preset, resolved
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS
from service.images.transform import PIPELINE_VERSION, for_format, from_options, parse
from service.library.renditions import Renditions, digests
from service.ops.regions import require_primary
from service.pull.sources import Sources
from service.settings.sections import Settings
from service.urls.rendition_url import AUTO, MAX_URL_CHARACTERS, PullUrl, RenditionUrl, base64url, parse_pull_url
from service.urls.signing import Signer, UrlBuilder

_PULL_EXPECTED = '{"url": "https://…", "transform": {…}, "variant": "…", "format": "…"}, all but the URL optional'


@get("/pull/{rest:path}", include_in_schema=False)
async def pull(
    request: Request[object, object, State],
    *,
    signer: Signer,
    url_builder: UrlBuilder,
    sources: Sources | None,
    renditions: Renditions,
    settings: Settings,
    rest: str,  # noqa: ARG001
) -> Response[bytes]:
    """Redirect to the rendition of what the source has: its stored focal point, and what `trim` leaves of it, resolved now.

    It takes images in, which is done where every original is.
    """
    asked, signature = parse_pull_url(request.scope["raw_path"])
    signer.verify(asked, signature)
    transform = parse(asked.transform)
    if request.scope["query_string"]:
        return Response(b"", status_code=308, headers=headers.redirect_headers(asked.path(signature)))
    pull_sources = allowed(sources)
    require_primary(settings)
    found = await pull_sources.find(asked.url)
    document = found.document
    transform = await resolved(document, transform, renditions)
    if asked.extension != AUTO:
        transform = await renditions.check(document.info, transform, FORMAT_OF_EXTENSION[asked.extension])
    target = RenditionUrl(PIPELINE_VERSION, document.digest, transform.canonical_form, asked.extension)
    fields = headers.pointer_headers(url_builder.sign(target), digests(target, transform), found.fresh_seconds)
    return Response(b"", status_code=302, headers=fields)


@post("/v1/pull", summary="The URL of a remote source's rendition", tags=["images"], status_code=200)
async def pull_url(
    request: Request[object, object, State],
    *,
    access: Access,
    url_builder: UrlBuilder,
    sources: Sources | None,
    settings: Settings,
) -> Response[OneUrl]:
    """Return a URL that always leads to the rendition of what the source has; nothing is fetched yet.

    `format` is one of those of a rendition, or `auto` for the best that a browser names in `Accept`. Who may take images in may do this.
    """
    access.require(request, "ingest")
    wanted = await json_body(request, PullRequest, _PULL_EXPECTED)
    url = allowed(sources).check(wanted.url)
    if len(base64url(url)) > MAX_URL_CHARACTERS:
        raise BadRequestError(
            "This URL is too long for the address of its renditions.",
            expected=f"a URL of at most {MAX_URL_CHARACTERS * 3 // 4} bytes",
            received=f"{len(url.encode())} bytes",
            remedy="Use a shorter one, or take the image in with POST /v1/images.",
        )
    transform = from_options(wanted.transform, preset(wanted.variant, settings))
    extension = AUTO
    if wanted.format != AUTO:
        image_format = next((name for name in FORMATS if name == wanted.format), None)
        if image_format is None:
            raise BadRequestError(
                "There is no such format.",
                expected=", ".join((*FORMATS, AUTO)),
                received=wanted.format,
                remedy="Ask for one of these.",
            )
        extension = FORMATS[image_format].extension
        transform = for_format(transform, image_format)
    return Response(OneUrl(url_builder.sign(PullUrl(url, transform.canonical_form, extension))), headers=headers.document_headers())
