"""What coding assistants read: the guides of `docs/` as Markdown, and `/llms.txt`, which lists them and has the essentials.

Options, settings, routes and unsigned transforms come from the tables that the server itself uses, so `/llms.txt` names all of them and no
others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from string import Template

import msgspec

from service.errors import every_problem
from service.images.digest import DIGEST_EXAMPLE
from service.images.formats import FORMATS
from service.images.options import API_OPTIONS, OPTIONS, Option
from service.images.transform import PIPELINE_VERSION
from service.settings.help import CLIENT_HELP, HELP
from service.settings.sections import Settings
from service.urls.rendition_url import AUTO, RENDITION_GRAMMAR
from service.urls.source_url import SOURCE_GRAMMAR
from service.urls.unsigned import FIRST_OPEN_VERSION, OPEN_FOR_EVERY_IMAGE, UnsignedTransforms


class Guide(msgspec.Struct, frozen=True):
    """A page of `docs/`.

    title: the text of links to it. summary: what it has, in one line. section: its heading in `/llms.txt`; by the format, readers that
    are short of room skip the section "Optional".
    """

    title: str
    summary: str
    section: str


_SITES, _CALLERS, _OPERATORS = "For people who build sites", "For people who call the server", "For people who operate it"
_OPTIONAL = "Optional"

# By file name without `.md`, in the order of `/llms.txt`.
GUIDES: Mapping[str, Guide] = {
    "transforms": Guide("Transforms", "every option for size, crop, colors, overlays and files, with its range and its effect", _SITES),
    "frameworks": Guide(
        "Frameworks",
        "`<picture>`, `srcset` and loaders in HTML, Next.js, Astro, Vite, React, Svelte, Vue and unpic, with code",
        _SITES,
    ),
    "caching": Guide("Caching", "why renditions are cached for a year, and how a page shows another picture", _SITES),
    "migrating": Guide(
        "Migrating",
        "the options of next/image, imgproxy and Cloudinary, with the corresponding ones of Darkroom",
        _SITES,
    ),
    "api": Guide("The HTTP API", "uploads, documents, URLs with and without a signature, remote images, takedowns", _CALLERS),
    "command-line": Guide("The command line", "`darkroom push`, `url`, `info`, `rm` and `open`, for folders of images", _CALLERS),
    "settings": Guide("Settings", "every environment variable with its meaning and default", _OPERATORS),
    "operation": Guide(
        "Operation",
        "a runbook, costs, health, CDNs and proxies in front, metrics, warming, and how render processes are confined",
        _OPERATORS,
    ),
    "install": Guide("Install", "from an empty machine to a picture with uv, a container, Compose or systemd", _OPERATORS),
    "deployments": Guide(
        "Deployments",
        "one Machine, three regions with a bucket, and three regions behind Cloudflare, on Fly.io",
        _OPERATORS,
    ),
    "store": Guide("The store", "what is stored, and how it is verified, copied and cleaned", _OPERATORS),
    "architecture": Guide("Architecture", "the layers of the code and the ways of a request", _OPTIONAL),
    "promises": Guide("Promises", "what holds under load, faults and malice, with the figures and tests of each promise", _OPTIONAL),
    "benchmarks": Guide("Benchmarks", "the cost of hits, renders, starts and memory, beside the least that each can cost", _OPTIONAL),
    "growth": Guide("Growth", "how costs grow with stored responses, originals, clients and render processes", _OPTIONAL),
    "overload": Guide("Overload", "what clients see when more renditions are requested than can be rendered", _OPTIONAL),
    "soak": Guide("Soak", "latencies, errors and memory of ten minutes in which everything happens at once", _OPTIONAL),
    "quality": Guide("Quality", "how `quality=auto` and the encoders' efforts are measured", _OPTIONAL),
}

# Code is matched too, so that nothing within it is mistaken for a link. The text of a link may contain code.
_MARKUP = re.compile(
    r"""
    ^```.*?^```$ | `[^`\n]*`                                    # code
    | (?P<unserved><!--.*?-->\n? | ^!\[[^\]]*\]\([^)]*\)\n*)      # a note for the authors, a picture
    | \[(?P<text>(?:`[^`\n]*`|[^\]`])*)\]\((?P<target>[^)\s]+)\) # a link
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


def read_guides() -> dict[str, str]:
    """Return the Markdown of each guide by its file name without `.md`, as the server serves it at `/docs/<name>.md`."""
    folder = Path(str(files("service"))) / "docs"
    if not folder.is_dir():
        # A checkout: a wheel has the guides in the package (pyproject.toml).
        folder = folder.parents[1] / "docs"
    return {name: servable((folder / f"{name}.md").read_text("utf-8")) for name in GUIDES}


def servable(markdown: str) -> str:
    """Return a guide without what the server does not have: links to other files of the repository become their text, pictures go."""
    return _MARKUP.sub(_servable, markdown)


def _servable(found: re.Match[str]) -> str:
    if found["unserved"] is not None:
        return ""
    target = found["target"]
    if target is None or target.startswith(("#", "https://")) or _guide_of(target) in GUIDES:
        return found[0]
    return found["text"]


def _guide_of(target: str) -> str:
    return target.partition("#")[0].removesuffix(".md")


def llms_text(settings: Settings, unsigned: UnsignedTransforms) -> str:
    """Return `/llms.txt`, in the format of https://llmstxt.org: title, summary, text without headings, and sections of links.

    settings: those of this server: its variants and public URL. unsigned: the transforms that need no signature on it.
    """
    # Imported only for this page: the server should start quickly.
    from service.http.openapi.operations import OPERATIONS  # noqa: PLC0415

    public_url = settings.server.public_url
    return Template((files("service") / "web" / "llms.txt").read_text("utf-8")).substitute(
        grammar=RENDITION_GRAMMAR,
        prefix=f" On this server it begins with `{public_url}`." if public_url else "",
        version=PIPELINE_VERSION,
        digest=DIGEST_EXAMPLE,
        extensions=_code_list(traits.extension for traits in FORMATS.values()),
        unsigned="\n\n".join(_unsigned(settings, unsigned)),
        sources=_sources(settings),
        options=_table(OPTIONS),
        json_options=_table({key: option for key, option in API_OPTIONS.items() if key not in OPTIONS}),
        routes=_code_list(f"{method.upper()} {path}" for path, method in OPERATIONS),
        settings=_code_list(HELP),
        command_settings=_code_list(CLIENT_HELP),
        problems=", ".join(f"[{error.slug}]({error.type_uri().removeprefix('/')})" for error in every_problem()),
        guides="\n\n".join(_sections()),
    )


def _unsigned(settings: Settings, unsigned: UnsignedTransforms) -> Iterator[str]:
    """Yield the paragraphs about URLs without a signature."""
    if not unsigned.in_order:
        yield "**Without a signature**: nothing on this server (`DARKROOM_UNSIGNED=none`)."
        return
    yield "**Without a signature**: anyone can build these URLs from a digest, with `-` in place of the signature. Others get 403 with `-`."
    if ladder := [transform for transform in unsigned.in_order if transform in unsigned.ladder]:
        yield f"```\n/i/v{PIPELINE_VERSION}/{DIGEST_EXAMPLE}/{ladder[0]}/-.webp\n```"
        extensions = _code_list(FORMATS[image_format].extension for image_format in FORMATS if image_format in OPEN_FOR_EVERY_IMAGE)
        yield (
            f"On this server, since `v{FIRST_OPEN_VERSION}`, these transforms are open with the extensions {extensions} "
            f"and `{AUTO}` for every image, `png` for images with transparency, and `gif` for animations: {_code_list(ladder)}. "
            "A width above that of the image gives the image at its own width."
        )
    if ladder and (quality := settings.rendering.quality):
        named = _code_list(f"quality={level}` with `{FORMATS[image_format].extension}" for image_format, level in quality.items())
        yield f"Each of them is also open with the server's own quality, which documents have: {named}."
    if unsigned.listed:
        yield f"On this server, these transforms are open in every format: {_code_list(sorted(unsigned.listed))}."
    if variants := settings.rendering.variants:
        named = "; ".join(f"`{name}` is `{transform.canonical_form}`" for name, transform in variants.items())
        yield f"Variants of this server: {named}. URLs contain the transform, not the name."


def _sources(settings: Settings) -> str:
    """Return the sentences about images in sources."""
    names = list(settings.sources.locations)
    if not names:
        return (
            "this server has no sources. `DARKROOM_SOURCES` names buckets and hosts whose images are not uploaded and have URLs below "
            "`/from/`."
        )
    return (
        f"this server has the sources {_code_list(names)}. An image there is not uploaded. Its URL is `{SOURCE_GRAMMAR}`, for example "
        f"`/from/{names[0]}/2026/panda%201.jpg/width=640/-.webp`. Each segment of the path is spelled as `encodeURIComponent` spells it: "
        '`path.split("/").map(encodeURIComponent).join("/")`. The same transforms as above need no signature; '
        "`POST /v1/sources/{name}/urls` makes the URL of any other, and of a path with a query. The picture changes when the "
        "source does; the response names its immutable URL in `Content-Location`."
    )


def _sections() -> Iterator[str]:
    """Yield the sections of links. The links are relative, so that they are right behind a public URL with a path too."""
    for section, guides in groupby(GUIDES.items(), lambda item: item[1].section):
        links = [f"- [{guide.title}](docs/{name}.md): {guide.summary}" for name, guide in guides]
        yield "\n".join([f"## {section}", "", *links])


def _table(options: Mapping[str, Option]) -> str:
    return "\n".join(f"| `{key}` | {option.help} |" for key, option in options.items())


def _code_list(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)
