"""`/from/…`: renditions of what the objects of a source are at the moment."""

from __future__ import annotations

import time

from litestar import Request, Response, get
from litestar.datastructures import State

from service.errors import BadSignatureError
from service.http import headers
from service.http.headers import SourceLifetime
from service.http.routes.renditions import RenditionServing, negotiate, rendition_response, require_open, verified_transform
from service.http.transforms import resolve_transform
from service.images.formats import FORMAT_OF_EXTENSION
from service.images.transform import PIPELINE_VERSION, Transform
from service.library.renditions import Renditions, digests
from service.ops.regions import require_primary
from service.sources.sources import SourceImage
from service.urls.rendition_url import AUTO, RenditionUrl
from service.urls.signing import UNSIGNED, UrlBuilder
from service.urls.source_url import parse_source_url


@get("/from/{rest:path}", include_in_schema=False)
async def get_from_source(
    request: Request[object, object, State],
    rendition_serving: RenditionServing,
    rest: str,  # noqa: ARG001 - Litestar requires it; the raw path is parsed instead
) -> Response[bytes]:
    """Return the rendition of what the object is, or redirect to it, with the stored focal point and `trim` resolved now.

    A request with a query string, or with another spelling of the object's path, is redirected to the canonical path. The source's image
    is ingested, which only the region with every original does.
    """
    renditions, settings, signer = rendition_serving.renditions, rendition_serving.settings, rendition_serving.signer
    sources, url_builder = rendition_serving.sources, rendition_serving.url_builder
    raw_path: bytes = request.scope["raw_path"]
    url, signature = parse_source_url(raw_path)
    transform = verified_transform(url, signature, signer)
    if sources.require(url.source).has_query(url.object_path) and signature == UNSIGNED:
        # Most hosts ignore queries that they do not know: there would be any number of URLs of one image, and each is fetched.
        raise BadSignatureError(
            "A path with a query needs a signature.",
            expected="a signature, or the path of an object without a question mark",
            received=url.object_path,
            remedy=f"Request a signed URL with {url.made_by}, or sign it with darkroom.js.",
        )
    canonical = url.path(signature)
    if request.scope["query_string"] or raw_path != canonical.encode("ascii"):
        return Response(b"", status_code=308, headers=headers.redirect_headers(canonical))
    require_primary(settings)
    started = time.perf_counter()
    found = await sources.find(url.source, url.object_path)
    source_seconds = time.perf_counter() - started
    if signature == UNSIGNED and signer.unsigned.depend_on_image(url):
        require_open(url, found.document.info, transform)
    transform = await resolve_transform(found.document, transform, renditions)
    if settings.sources.response == "redirect":
        return await _redirect(found, transform, url.extension, url_builder, renditions)
    extension = url.extension
    if extension == AUTO:
        extension = await negotiate(request, renditions, found.document.digest, transform, PIPELINE_VERSION)
    target, transform = _target(found, transform, extension, url_builder)
    rendition = await renditions.get_or_render(target, transform)
    fields = headers.source_picture_headers(
        url_builder.rendition_url(target, found.document.info, transform),
        rendition.etag,
        rendition.sha256,
        digests(target, transform),
        SourceLifetime(found.fresh_seconds, found.stale_seconds),
        negotiated=url.extension == AUTO,
    )
    return rendition_response(rendition, "", extension, fields, source_seconds=source_seconds)


async def _redirect(
    found: SourceImage, transform: Transform, extension: str, url_builder: UrlBuilder, renditions: Renditions
) -> Response[bytes]:
    target, transform = _target(found, transform, extension, url_builder)
    if extension != AUTO:
        # The rendition itself is not needed, but an error belongs to this URL.
        await renditions.resolve(found.document.info, transform, FORMAT_OF_EXTENSION[extension])
    location = url_builder.rendition_url(target, found.document.info, transform)
    fields = headers.source_redirect_headers(location, digests(target, transform), SourceLifetime(found.fresh_seconds, found.stale_seconds))
    return Response(b"", status_code=302, headers=fields)


def _target(found: SourceImage, transform: Transform, extension: str, url_builder: UrlBuilder) -> tuple[RenditionUrl, Transform]:
    """Return the immutable URL of a rendition as documents have it, and its transform."""
    if extension != AUTO:
        transform = url_builder.transform_of(transform, FORMAT_OF_EXTENSION[extension])
    name = found.document.name if url_builder.use_names else ""
    return RenditionUrl(PIPELINE_VERSION, found.document.digest, transform.canonical_form, extension, name), transform
