"""`/v1/sources`: the sources, the objects in them, and signed URLs of their images."""

from __future__ import annotations

from urllib.parse import quote

from litestar import Request, Response, get, post
from litestar.datastructures import State

from service.errors import BadAddressError
from service.http import headers
from service.http.auth import BearerAuth
from service.http.schemas import ObjectsQuery, SourceInfo, SourceObjects, SourcesResponse, SourceUrlRequest, UrlResponse
from service.http.transforms import resolve_variant
from service.http.validation import read_json, read_query
from service.images.formats import FORMATS
from service.images.transform import from_options
from service.settings.sections import Settings
from service.sources.sources import Sources
from service.urls.rendition_url import AUTO
from service.urls.signing import UrlBuilder
from service.urls.source_url import SourceUrl, check_object_path


@get("/v1/sources", summary="List the sources", tags=["sources"])
async def list_sources(request: Request[object, object, State], *, auth: BearerAuth, sources: Sources) -> Response[SourcesResponse]:
    """Return the names and kinds of the sources in `DARKROOM_SOURCES`, for a token that is bound to sources only of these."""
    grant = auth.require_for_source(request, "read", "ingest")
    found = [
        SourceInfo(name, location.kind, location.is_bucket) for name, location in sources.locations.items() if grant.permits_source(name)
    ]
    return Response(SourcesResponse(found), headers=headers.document_headers())


@get("/v1/sources/{name:str}/objects", summary="List the objects of a source", tags=["sources"])
async def list_objects(
    request: Request[object, object, State], *, auth: BearerAuth, sources: Sources, name: str
) -> Response[SourceObjects]:
    """Return a page of the objects in a bucket, in the order of their paths. A host has no list of its objects.

    The `Link` header with `rel="next"` has the URL of the next page; the last page has none. Objects whose paths cannot be part of a URL,
    such as those that mark a folder, are left out.
    """
    auth.require_for_source(request, "read", "ingest").require_source(name)
    sources.require(name)
    query = read_query(request, ObjectsQuery, 'Follow the Link with rel="next" from page to page.')
    objects = await sources.list(name, query.after, query.limit)
    fields = headers.document_headers()
    if len(objects) == query.limit:
        after = quote(objects[-1].path, safe="")
        fields["Link"] = f'</v1/sources/{name}/objects?limit={query.limit}&after={after}>; rel="next"'
    return Response(SourceObjects([one for one in objects if _has_url(one.path)]), headers=fields)


@post("/v1/sources/{name:str}/urls", summary="Make a URL of a source's image", tags=["sources"], status_code=200)
async def create_source_url(
    request: Request[object, object, State], *, auth: BearerAuth, url_builder: UrlBuilder, sources: Sources, settings: Settings, name: str
) -> Response[UrlResponse]:
    """Return a URL of a rendition of whatever the object is at the moment; nothing is fetched yet.

    A transform of the open ladder needs no request, unless the path has a query: anyone can build its URL. `format` is one of a
    rendition's formats, or `auto` for the best one that the browser names in `Accept`.
    """
    auth.require_for_source(request, "read").require_source(name)
    location = sources.require(name)
    wanted = await read_json(request, SourceUrlRequest)
    check_object_path(wanted.path)
    transform = from_options(wanted.transform, resolve_variant(wanted.variant, settings))
    extension = AUTO
    if wanted.format != "auto":
        extension = FORMATS[wanted.format].extension
        transform = url_builder.transform_of(transform, wanted.format)
    url = SourceUrl(name, wanted.path, transform.canonical_form, extension)
    made = url_builder.sign(url) if location.has_query(wanted.path) else url_builder.source_url(url)
    return Response(UrlResponse(made), headers=headers.document_headers())


def _has_url(path: str) -> bool:
    try:
        check_object_path(path)
    except BadAddressError:
        return False
    return True
