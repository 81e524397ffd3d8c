"""`/i/…`: renditions by their immutable address."""

from __future__ import annotations

from litestar import Request, Response, get
from litestar.datastructures import State

from service import address, headers
from service.address import AUTO, MEDIA_TYPES, UNSIGNED, Address, Signer
from service.renditions import Rendition, Renditions
from service.transform import parse, parse_canonical


@get("/i/{rest:path}", include_in_schema=False)
async def rendition(request: Request[object, object, State], signer: Signer, renditions: Renditions, rest: str) -> Response[bytes]:  # noqa: ARG001
    """Return the rendition that the raw path is the address of.

    Verified first and parsed then; with a query string a redirect to the address without it, so that nobody can multiply entries.
    """
    raw_path: bytes = request.scope["raw_path"]
    asked, signature = address.parse(raw_path)
    if signature == UNSIGNED:
        transform = parse_canonical(asked.transform)
        signer.verify(asked, signature)
    else:
        signer.verify(asked, signature)
        transform = parse(asked.transform)
    if request.scope["query_string"]:
        return Response(b"", status_code=308, headers=headers.redirect_headers(asked.path(signature)))
    if asked.extension == AUTO:
        chosen = Address(asked.version, asked.digest, asked.transform, negotiated_extension(request.headers.get("accept", "")))
        found = await renditions.find_or_render(chosen, transform)
        fields = headers.negotiated_headers(found.etag, found.sha256, [asked.digest])
        return _answer(found, chosen.extension, fields)
    found = await renditions.find_or_render(asked, transform)
    return _answer(found, asked.extension, headers.rendition_headers(found.etag, found.sha256, [asked.digest]))


def negotiated_extension(accept: str) -> str:
    """Return the smallest format that `Accept` names: `*/*` alone says nothing of AVIF or WebP, so it gets JPEG (RFC 9110 §12.5.1)."""
    accepted = {
        media_type.strip().lower()
        for media_type, *parameters in (part.split(";") for part in accept.split(","))
        if not any(parameter.replace(" ", "").rstrip("0.") == "q=" for parameter in parameters)
    }
    return next((extension for extension in ("avif", "webp") if MEDIA_TYPES[extension] in accepted), "jpg")


def _answer(found: Rendition, extension: str, fields: dict[str, str]) -> Response[bytes]:
    if not found.stored:
        fields = headers.unkept(fields)
    fields["Server-Timing"] = f"{found.tier};dur={found.seconds * 1000:.1f}"
    return Response(found.body, media_type=MEDIA_TYPES[extension], headers=fields)
