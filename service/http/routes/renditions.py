"""`/i/…`: renditions at their immutable URLs."""

from __future__ import annotations

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State

from service import instruments
from service.errors import BadSignatureError
from service.http import headers
from service.http.negotiation import negotiated_extension
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS
from service.images.info import ImageInfo
from service.images.transform import Transform, parse, parse_canonical
from service.library.documents import Documents
from service.library.renditions import Rendition, Renditions, digests
from service.settings.sections import Settings
from service.sources.sources import Sources
from service.urls.rendition_url import AUTO, RenditionUrl, parse_rendition_url
from service.urls.signing import UNSIGNED, Signer, UrlBuilder
from service.urls.source_url import SourceUrl
from service.urls.unsigned import open_formats


class RenditionServing(msgspec.Struct, frozen=True):
    """The parts of the service that make the responses of `/i/…` and `/from/…`.

    They are one dependency of these handlers, because Litestar starts a task for each dependency of a handler that has several. That is a
    tenth of the CPU time of refusing a request.
    """

    documents: Documents
    renditions: Renditions
    settings: Settings
    signer: Signer
    sources: Sources
    url_builder: UrlBuilder


@get("/i/{rest:path}", include_in_schema=False)
async def get_rendition(
    request: Request[object, object, State],
    rendition_serving: RenditionServing,
    rest: str,  # noqa: ARG001 - Litestar requires it; the raw path is parsed instead
) -> Response[bytes]:
    """Return the rendition at the raw path; its signature is verified before its transform is parsed.

    A request with a query string is redirected to the path, so that queries cannot multiply cache entries. So is one with another spelling
    of the name, or without a signature and with another name than the image's.
    """
    documents, renditions, signer = rendition_serving.documents, rendition_serving.renditions, rendition_serving.signer
    raw_path: bytes = request.scope["raw_path"]
    url, signature = parse_rendition_url(raw_path)
    transform = verified_transform(url, signature, signer)
    if signature == UNSIGNED and url.name:
        url = msgspec.structs.replace(url, name=(await documents.get(url.digest)).name)
    if signature == UNSIGNED and signer.unsigned.depend_on_image(url):
        require_open(url, (await documents.facts(url.digest)).info, transform)
    location = url.path(signature)
    if request.scope["query_string"] or location.encode("ascii") != raw_path:
        return Response(b"", status_code=308, headers=headers.redirect_headers(location))
    originals = digests(url, transform)
    if url.extension == AUTO:
        extension = await negotiate(request, renditions, url.digest, transform, url.version)
        chosen = RenditionUrl(url.version, url.digest, url.transform, extension)
        rendition = await renditions.get_or_render(chosen, transform)
        return rendition_response(rendition, url.name, extension, headers.negotiated_headers(rendition.etag, rendition.sha256, originals))
    rendition = await renditions.get_or_render(url, transform)
    return rendition_response(rendition, url.name, url.extension, headers.rendition_headers(rendition.etag, rendition.sha256, originals))


def verified_transform(url: RenditionUrl | SourceUrl, signature: str, signer: Signer) -> Transform:
    """Return the transform of a URL; raises `BadSignatureError`, and `BadTransformError` for one that is invalid.

    A signature is verified before the transform is parsed. Without a signature, only the canonical form of a transform is valid.
    """
    if signature == UNSIGNED:
        transform = parse_canonical(url.transform)
        signer.verify(url, signature)
        return transform
    signer.verify(url, signature)
    return parse(url.transform)


async def negotiate(
    request: Request[object, object, State], renditions: Renditions, digest: str, transform: Transform, version: int
) -> str:
    """Return the extension of the best format for a request that a pipeline version can make a rendition of an image in."""
    formats = await renditions.possible_formats(digest, transform, version)
    return negotiated_extension(request.headers.get("accept", ""), formats)


def require_open(url: RenditionUrl | SourceUrl, info: ImageInfo, transform: Transform) -> None:
    """Raise `BadSignatureError` if a transform that is open for some images is not open for this one in the format of the URL."""
    formats = open_formats(info, transform)
    if FORMAT_OF_EXTENSION[url.extension] not in formats:
        extensions = ", ".join(FORMATS[image_format].extension for image_format in formats)
        raise BadSignatureError(
            "This format needs a signature, because this image is not offered in it.",
            expected=f"a signature, or one of the extensions {extensions}",
            received=url.extension,
            remedy=f"Request a signed URL with {url.made_by}.",
        )


def rendition_response(
    rendition: Rendition, name: str, extension: str, fields: dict[str, str], *, source_seconds: float | None = None
) -> Response[bytes]:
    """Return the response that consists of a rendition, with the header fields of its URL; no cache may keep one that is not stored.

    name: the name in the URL, empty for none. source_seconds: how long it took to find out what the object of a source is, in seconds.
    """
    if name:
        fields["Content-Disposition"] = headers.content_disposition(name, extension)
    if not rendition.stored:
        fields = headers.uncacheable(fields)
    seconds = msgspec.structs.asdict(rendition.timings)
    instruments.RENDITION_SECONDS.observe(rendition.timings.total, rendition.tier)
    instruments.RENDITION_BYTES.add(rendition.tier, amount=len(rendition.body))
    if source_seconds is not None:
        seconds |= {"total": seconds["total"] + source_seconds, "source": source_seconds}
    fields["Server-Timing"] = headers.server_timing(rendition.tier, seconds)
    return Response(rendition.body, media_type=FORMATS[FORMAT_OF_EXTENSION[extension]].media_type, headers=fields)
