"""The web pages: the playground at `/`, the API at `/docs`, errors at `/problems`, and their files at content-hashed URLs.

`/darkroom.js` redirects to the newest version of the module for other sites, and `/darkroom.js.tgz` to its npm package.
"""

from __future__ import annotations

import hashlib
import html
import re
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from string import Template
from typing import NamedTuple
from urllib.parse import quote

import anyio
import msgspec
from litestar import Request, Response, Router, get
from litestar.datastructures import State

from service.errors import NotFoundError, Problem, ServiceError, every_problem
from service.http import headers
from service.http.guides import GUIDES
from service.images.digest import base32

_MEDIA_TYPES = {
    ".css": "text/css",
    ".d.ts": "application/typescript",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".tgz": "application/gzip",
}

# The files that other sites load, at URLs without a hash.
_MODULE, _MODULE_TYPES, _MODULE_PACKAGE = "darkroom.js", "darkroom.d.ts", "darkroom.js.tgz"

# The name of a module in an import statement of another one.
_IMPORT = re.compile(r'(?<=from "\./)[a-z-]+\.js(?=";)')

# From the installed package with Swagger UI: 1.7 MB, read when a browser requests `/docs` for the first time.
_SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")


class _Site(NamedTuple):
    """The pages and files of this package.

    files: the name with a hash, and the content, of each file by its name. contents: the content and media type of each by its name with a
    hash. playground: a page. problem: a template for the pages of errors. docs: a page that lacks the hashes of the installed files.
    """

    files: dict[str, tuple[str, bytes]]
    contents: dict[str, tuple[bytes, str]]
    playground: str
    problem: Template
    docs: str


@cache
def _read_site() -> _Site:
    from service.http.npm_package import npm_package  # noqa: PLC0415 - it makes a tarball, which most servers never do

    folder = files("service") / "web"
    web_files = {file.name: file.read_bytes() for file in folder.iterdir() if _extension(file.name) in _MEDIA_TYPES}
    own_files = hashed_files({**web_files, _MODULE_PACKAGE: npm_package(folder)})
    contents = {hashed: (body, _MEDIA_TYPES[_extension(hashed)]) for hashed, body in own_files.values()}

    def page(name: str) -> str:
        return _with_hashes((folder / name).read_text("utf-8"), "/web/", own_files)

    docs = Template(page("docs.html")).substitute(guides=_guide_list())
    return _Site(own_files, contents, page("index.html"), Template(page("problem.html")), docs)


async def _site() -> _Site:
    return await anyio.to_thread.run_sync(_read_site)


def page_router() -> Router:
    """Return the routes of the pages and their files.

    Files are read once; the URL of a file contains the hash of its content, and the pages link to that URL. Every other spelling of a
    URL, and every query, is redirected to the canonical URL (308). Files are read at the first request, because most servers never get one.
    """

    @get("/", media_type="text/html", include_in_schema=False)
    async def playground() -> Response[str]:
        return page_response((await _site()).playground)

    @get("/web/{name:str}", include_in_schema=False)
    async def page_file(name: str) -> Response[bytes]:
        site = await _site()
        response = _file(site.contents, name)
        if name == site.files[_MODULE][0]:
            response.headers["X-TypeScript-Types"] = f"./{site.files[_MODULE_TYPES][0]}"
        return response

    @get([f"/{_MODULE}", f"/{_MODULE_TYPES}", f"/{_MODULE_PACKAGE}"], include_in_schema=False)
    async def newest_file(request: Request[object, object, State]) -> Response[bytes]:
        # Not `request.url`, which is made from Host too, and raises for an invalid one.
        hashed, _ = (await _site()).files[request.scope["path"].removeprefix("/")]
        # Relative, so that it is right behind a public URL with a path too.
        return Response(b"", status_code=302, headers=headers.newest_file_headers(f"web/{hashed}"))

    @get("/docs", media_type="text/html", include_in_schema=False)
    async def docs() -> Response[str]:
        return page_response(_with_hashes((await _site()).docs, "/docs/files/", await anyio.to_thread.run_sync(_swagger_files)))

    @get("/docs/files/{name:str}", include_in_schema=False)
    async def docs_file(name: str) -> Response[bytes]:
        installed = await anyio.to_thread.run_sync(_swagger_files)
        return _file({hashed: (body, _MEDIA_TYPES[_extension(hashed)]) for hashed, body in installed.values()}, name)

    @get("/problems", media_type="text/html", include_in_schema=False)
    async def problems() -> Response[str]:
        return page_response((await _site()).problem.substitute(title="Problems", content=_problem_list()))

    @get("/problems/{slug:str}", media_type="text/html", include_in_schema=False)
    async def problem(slug: str) -> Response[str]:
        for error in every_problem():
            if error.slug == slug:
                content = _problem_article(error)
                return page_response((await _site()).problem.substitute(title=html.escape(error.title), content=content))
        raise NotFoundError("There is no such problem.", received=slug, remedy="GET /problems lists all.")

    return Router(
        "/",
        route_handlers=[playground, page_file, newest_file, docs, docs_file, problems, problem],
        before_request=redirect_to_canonical_url,
    )


async def redirect_to_canonical_url(request: Request[object, object, State]) -> Response[bytes] | None:
    """Return a redirect to the canonical URL of a page, unless the request already has that URL.

    Routing ignores queries, doubled and trailing slashes and needless percent-encodings: without the redirect, each spelling would be a
    cache entry of its own, here and in every cache in front. If only the query is removed, `Location` is relative, so that it is right
    behind a public URL with a path too.
    """
    path = "/" + "/".join(quote(segment) for segment in request.scope["path"].split("/") if segment)
    if request.scope["raw_path"] != path.encode("ascii"):
        return Response(b"", status_code=308, headers=headers.redirect_headers(path))
    if request.scope["query_string"]:
        return Response(b"", status_code=308, headers=headers.redirect_headers("./" + path.rpartition("/")[2]))
    return None


def hashed_files(contents: dict[str, bytes]) -> dict[str, tuple[str, bytes]]:
    """Return for each file its name with the hash of its content, and that content.

    A module imports other modules by their hashed names, which are part of its content. An imported module is therefore hashed first, so
    that a change of it changes the names of all its importers. Raises `ValueError` for modules that import each other in a circle.
    """
    done: dict[str, tuple[str, bytes]] = {}

    def hashed(name: str, importers: tuple[str, ...]) -> str:
        if name in importers:
            raise ValueError(f"modules import each other: {' > '.join((*importers, name))}")
        if name not in done:
            body = contents[name]
            if name.endswith(".js"):
                body = _IMPORT.sub(lambda found: hashed(found[0], (*importers, name)), body.decode("utf-8")).encode()
            done[name] = (_hashed_name(name, body), body)
        return done[name][0]

    for name in contents:
        hashed(name, ())
    return done


@cache
def _swagger_files() -> dict[str, tuple[str, bytes]]:
    (folder,) = (files("swagger_ui_bundle") / "vendor").iterdir()
    found = {}
    for name in _SWAGGER_FILES:
        body = (folder / name).read_bytes()
        found[name] = (_hashed_name(name, body), body)
    return found


def _with_hashes(page: str, folder: str, hashed_names: dict[str, tuple[str, bytes]]) -> str:
    for name, (hashed, _) in hashed_names.items():
        page = page.replace(f'"{folder}{name}"', f'"{folder}{hashed}"')
    return page


def page_response(page: str, media_type: str = "text/html") -> Response[str]:
    """Return the response with a page, which caches revalidate by its digest."""
    return Response(page, media_type=media_type, headers={**headers.page_headers(), "ETag": f'"{_hash(page.encode())}"'})


def _file(contents: dict[str, tuple[bytes, str]], name: str) -> Response[bytes]:
    if name not in contents:
        raise NotFoundError("There is no such file.", received=name, remedy="Reload the page: it links to the newest files.")
    body, media_type = contents[name]
    return Response(body, media_type=media_type, headers=headers.page_file_headers())


def _guide_list() -> str:
    return "\n".join(f'      <a href="/docs/{name}.md">{html.escape(guide.title)}</a>' for name, guide in GUIDES.items())


def _problem_list() -> str:
    rows = [
        f'<tr><th scope="row">{error.status_code}</th><td><a href="{error.type_uri()}">{html.escape(error.title)}</a></td>'
        f"<td>{_prose(_meaning(error))}</td></tr>"
        for error in every_problem()
    ]
    return (
        '<article class="card problems"><h2>Problems</h2>'
        "<p>Every error is <code>application/problem+json</code> (RFC 9457): <code>type</code> is the path of a page below, "
        "<code>detail</code>, <code>expected</code>, <code>received</code> and <code>remedy</code> describe the particular request.</p>"
        f"<table><thead><tr><th>Status</th><th>Problem</th><th>What it means</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</article>"
    )


def _problem_article(error: type[ServiceError]) -> str:
    example = Problem(error.type_uri(), error.title, error.status_code, "What is wrong with this request, in one sentence.")
    members = {
        **msgspec.to_builtins(example),
        "expected": "a valid value",
        "received": "the invalid value",
        "remedy": "what to do about it",
    }
    text = msgspec.json.format(msgspec.json.encode(members), indent=2).decode()
    return (
        f'<article class="card problems"><p class="quiet">{error.status_code} {HTTPStatus(error.status_code).phrase}</p>'
        f"<h2>{html.escape(error.title)}</h2><p>{_prose(_meaning(error))}</p>"
        f"<h3>What to do</h3><p>{_prose(error.help)}</p>"
        f'<h3 id="example">Example</h3><pre tabindex="0" role="region" aria-labelledby="example"><code>{html.escape(text)}</code></pre>'
        "</article>"
    )


def _meaning(error: type[ServiceError]) -> str:
    return (error.__doc__ or "").partition("\n")[0]


def _prose(text: str) -> str:
    """Return a sentence as HTML, with text between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _hashed_name(name: str, body: bytes) -> str:
    extension = _extension(name)
    return f"{name.removesuffix(extension)}.{_hash(body)}{extension}"


def _extension(name: str) -> str:
    return ".d.ts" if name.endswith(".d.ts") else name[name.rfind(".") :]


def _hash(body: bytes) -> str:
    return base32(hashlib.sha256(body).digest()[:10])
