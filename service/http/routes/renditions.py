"""`/i/…`: renditions at their immutable URLs."""

from __future__ import annotations

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State

from service.errors import BadSignatureError
from service.http import headers
from service.http.negotiation import negotiated_extension
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS
from service.images.transform import Transform, parse, parse_canonical
from service.library.renditions import Rendition, Renditions, digests
from service.urls.rendition_url import AUTO, RenditionUrl, parse_rendition_url
from service.urls.signing import UNSIGNED, Signer
from service.urls.unsigned import open_formats


@get("/i/{rest:path}", include_in_schema=False)
async def get_rendition(
    request: Request[object, object, State],
    signer: Signer,
    renditions: Renditions,
    rest: str,  # noqa: ARG001 - Litestar requires it; the raw path is parsed instead
) -> Response[bytes]:
    """Return the rendition at the raw path; its signature is verified before its transform is parsed.

    A request with a query string is redirected to the path, so that queries cannot multiply cache entries.
    """
    raw_path: bytes = request.scope["raw_path"]
    url, signature = parse_rendition_url(raw_path)
    if signature == UNSIGNED:
        transform = parse_canonical(url.transform)
        signer.verify(url, signature)
        if signer.unsigned.depend_on_image(url):
            await _require_open(url, transform, signer, renditions)
    else:
        signer.verify(url, signature)
        transform = parse(url.transform)
    if request.scope["query_string"]:
        return Response(b"", status_code=308, headers=headers.redirect_headers(url.path(signature)))
    originals = digests(url, transform)
    if url.extension == AUTO:
        formats = await renditions.possible_formats(url.digest, transform, url.version)
        extension = negotiated_extension(request.headers.get("accept", ""), formats)
        chosen = RenditionUrl(url.version, url.digest, url.transform, extension)
        rendition = await renditions.get_or_render(chosen, transform)
        return _response(rendition, extension, headers.negotiated_headers(rendition.etag, rendition.sha256, originals))
    rendition = await renditions.get_or_render(url, transform)
    return _response(rendition, url.extension, headers.rendition_headers(rendition.etag, rendition.sha256, originals))


async def _require_open(url: RenditionUrl, transform: Transform, signer: Signer, renditions: Renditions) -> None:
    """Raise `BadSignatureError` if an unsigned transform is not open for this image in the format of the URL."""
    info = await renditions.image_info(url.digest)
    if not signer.unsigned.permit(url, info, transform):
        extensions = ", ".join(FORMATS[image_format].extension for image_format in open_formats(info, transform))
        raise BadSignatureError(
            "This format needs a signature, because this image is not offered in it.",
            expected=f"a signature, or one of the extensions {extensions}",
            received=url.extension,
            remedy="Request a signed URL with POST /v1/images/{digest}/urls.",
        )


def _response(rendition: Rendition, extension: str, fields: dict[str, str]) -> Response[bytes]:
    if not rendition.stored:
        fields = headers.uncacheable(fields)
    fields["Server-Timing"] = headers.server_timing(rendition.tier, msgspec.structs.asdict(rendition.timings))
    return Response(rendition.body, media_type=FORMATS[FORMAT_OF_EXTENSION[extension]].media_type, headers=fields)
