"""`/i/…`: renditions by their immutable address."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State

from service.http import headers
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS, Format
from service.images.transform import parse, parse_canonical
from service.library.renditions import Rendition, Renditions, digests
from service.urls.rendition_url import AUTO, RenditionUrl, parse_rendition_url
from service.urls.signing import UNSIGNED, Signer

# Browsers send about 150 characters; a list of thousands of nothing takes a while to read.
MAX_ACCEPT_CHARACTERS = 1_024

# What may be chosen before the fallback, which needs no naming.
_NEGOTIATED = (FORMATS["avif"].media_type, FORMATS["webp"].media_type)


@get("/i/{rest:path}", include_in_schema=False)
async def rendition(request: Request[object, object, State], signer: Signer, renditions: Renditions, rest: str) -> Response[bytes]:  # noqa: ARG001
    """Return the rendition that the raw path is the address of.

    Verified first and parsed then; with a query string a redirect to the address without it, so that nobody can multiply entries.
    """
    raw_path: bytes = request.scope["raw_path"]
    asked, signature = parse_rendition_url(raw_path)
    if signature == UNSIGNED:
        transform = parse_canonical(asked.transform)
        signer.verify(asked, signature)
    else:
        signer.verify(asked, signature)
        transform = parse(asked.transform)
    if request.scope["query_string"]:
        return Response(b"", status_code=308, headers=headers.redirect_headers(asked.path(signature)))
    seen = digests(asked, transform)
    if asked.extension == AUTO:
        formats = await renditions.possible_formats(asked.digest, transform, asked.version)
        extension = negotiated_extension(request.headers.get("accept", ""), formats)
        chosen = RenditionUrl(asked.version, asked.digest, asked.transform, extension)
        found = await renditions.get_or_render(chosen, transform)
        fields = headers.negotiated_headers(found.etag, found.sha256, seen)
        return _answer(found, chosen.extension, fields)
    found = await renditions.get_or_render(asked, transform)
    return _answer(found, asked.extension, headers.rendition_headers(found.etag, found.sha256, seen))


def negotiated_extension(accept: str, formats: Sequence[Format]) -> str:
    """Return the first of `formats` that `Accept` names, or the last: `*/*` alone says nothing of AVIF or WebP (RFC 9110 §12.5.1)."""
    accepted = _accepted(accept)
    *better, fallback = (FORMATS[image_format] for image_format in formats)
    return next((traits for traits in better if traits.media_type in accepted), fallback).extension


def normalised_accept(accept: bytes) -> bytes:
    """Return what matters of an `Accept` for the format that is chosen: two clients with the same get the same."""
    accepted = _accepted(accept.decode("latin-1"))
    return b",".join(media_type.encode("ascii") for media_type in _NEGOTIATED if media_type in accepted)


def _accepted(accept: str) -> set[str]:
    """Return the media types that an `Accept` names, none where it is longer than any browser's."""
    if len(accept) > MAX_ACCEPT_CHARACTERS:
        return set()
    return {
        media_type.strip().lower()
        for media_type, *parameters in (part.split(";") for part in accept.split(","))
        if not any(parameter.replace(" ", "").rstrip("0.") == "q=" for parameter in parameters)
    }


def _answer(found: Rendition, extension: str, fields: dict[str, str]) -> Response[bytes]:
    if not found.stored:
        fields = headers.unkept(fields)
    fields["Server-Timing"] = headers.server_timing(found.tier, msgspec.structs.asdict(found.timings))
    return Response(found.body, media_type=FORMATS[FORMAT_OF_EXTENSION[extension]].media_type, headers=fields)
