"""The sides of other image servers. Without the variable `PEERS`, the folder of their packages, there are none."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlencode

import psutil

from service.images.formats import Format
from tests.bench import servers
from tests.bench.peers import packages
from tests.bench.peers.packages import Packages
from tests.bench.servers import HOST, MeasuredServer
from tests.bench.side import HttpSide, OpenSide, Place, Side, Work
from tests.support.server import free_port

_HERE = Path(__file__).parent

# thumbor fits pictures into a box. Boxes of this height or more do not limit a rendition.
_FIRST_BOX_HEIGHT = 10_000
_THUMBOR_KEY = "bench"

_START_SECONDS, _END_SECONDS = 60.0, 15.0

# As the documentation of sharp recommends for servers with glibc.
_NODE_VARIABLES = {"NODE_ENV": "production", "MALLOC_ARENA_MAX": "2", "NEXT_TELEMETRY_DISABLED": "1"}

# Those of its configuration, which allows twenty.
_NEXT_QUALITIES = range(60, 97, 3)

_MEDIA_TYPES: Mapping[Format, str] = {"webp": "image/webp", "jpeg": "image/jpeg", "avif": "image/avif"}


def thumbor_path(work: Work, number: int, quality: int | None) -> str:
    """Return the signed path of a rendition of thumbor."""
    size = f"{work.width}x{work.height}/smart" if work.smart_crop else f"fit-in/{work.width}x{_FIRST_BOX_HEIGHT + number}"
    filters = [f"format({work.format})", f"max_age({86_400 + number})", *([] if quality is None else [f"quality({quality})"])]
    path = f"{size}/filters:{':'.join(filters)}/{work.original}"
    signature = hmac.digest(_THUMBOR_KEY.encode(), path.encode(), hashlib.sha1)
    return f"/{base64.urlsafe_b64encode(signature).decode()}/{path}"


def ipx_path(work: Work, number: int, quality: int | None) -> str:
    """Return the path of a rendition of ipx, which renders every request."""
    del number
    size = f"s_{work.width}x{work.height},fit_cover,pos_attention" if work.smart_crop else f"w_{work.width}"
    modifiers = [f"f_{work.format}", size, *([] if quality is None else [f"q_{quality}"])]
    return f"/{','.join(modifiers)}/{work.original}"


def sharp_path(work: Work, number: int, quality: int | None) -> str:
    """Return the path of a rendition of the server that calls sharp for every request."""
    del number
    values = {"width": work.width, "height": work.height, "format": work.format, "quality": quality}
    return f"/{work.original}?{urlencode({name: value for name, value in values.items() if value is not None})}"


def next_path(work: Work, number: int, quality: int | None) -> str | None:
    """Return the path of a rendition of Next.js, which does not crop."""
    if work.smart_crop:
        return None
    original = quote(f"/originals/{work.original}?number={number}", safe="")
    return f"/_next/image?url={original}&w={work.width}&q={quality or 75}"


def image_filter_path(work: Work, number: int, quality: int | None) -> str | None:
    """Return the path of a rendition of image_filter, which keeps the format of the original, and has no crop that looks at the picture."""
    if work.smart_crop or work.format != "jpeg" or not work.original.endswith(".jpg"):
        return None
    values = {"width": work.width, "number": number} | ({} if quality is None else {"quality": quality})
    return f"/{work.original}?{urlencode(values)}"


@contextmanager
def _thumbor(place: Place, installed: Packages) -> Iterator[OpenSide]:
    config = place.folder / "thumbor.conf"
    settings: dict[str, object] = {
        "SECURITY_KEY": _THUMBOR_KEY,
        "ALLOW_UNSAFE_URL": False,
        "LOADER": "thumbor.loaders.file_loader",
        "FILE_LOADER_ROOT_PATH": str(place.originals),
        "STORAGE": "thumbor.storages.no_storage",
        "RESULT_STORAGE": "thumbor.result_storages.file_storage",
        "RESULT_STORAGE_FILE_STORAGE_ROOT_PATH": str(place.folder / "results"),
        "DETECTORS": ["thumbor.detectors.feature_detector"],
        "RESPECT_ORIENTATION": True,
    }
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()), "utf-8")
    port = free_port()
    processes = len(os.sched_getaffinity(0))
    command = [str(installed.thumbor), "--ip", HOST, "--port", str(port), "--conf", str(config), "--processes", str(processes)]
    with servers.serving(command, port, dict(os.environ), _START_SECONDS, ready="/healthcheck") as server, _ending_descendants(server):
        yield HttpSide(server, thumbor_path)


@contextmanager
def _node(place: Place, installed: Packages, script: str, path: Callable[[Work, int, int | None], str | None]) -> Iterator[OpenSide]:
    port = free_port()
    command = [installed.node, script, str(place.originals), str(port)]
    with servers.serving(command, port, os.environ | _NODE_VARIABLES, _START_SECONDS, folder=installed.node_folder) as server:
        yield HttpSide(server, path, caches=False)


@contextmanager
def _next(place: Place, installed: Packages) -> Iterator[OpenSide]:
    port = free_port()
    # A copy, whose cache is empty.
    folder = place.folder / "next"
    shutil.copytree(installed.next_server, folder, symlinks=True)
    shutil.copytree(place.originals, folder / "public" / "originals")
    environ = os.environ | _NODE_VARIABLES | {"HOSTNAME": HOST, "PORT": str(port)}
    with servers.serving([installed.node, "server.js"], port, environ, _START_SECONDS, folder=folder) as server:
        yield HttpSide(server, next_path, headers=lambda work: {"Accept": _MEDIA_TYPES[work.format]}, qualities=_NEXT_QUALITIES)


@contextmanager
def _image_filter(place: Place, installed: Packages) -> Iterator[OpenSide]:
    port = free_port()
    values = {"MODULE": installed.image_filter, "FOLDER": place.folder, "PORT": port, "ORIGINALS": place.originals}
    # Its processes read what only this user can read.
    text = (_HERE / "nginx.conf").read_text("utf-8").replace("USER", "user root;" if os.geteuid() == 0 else "")
    for name, value in values.items():
        text = text.replace(name, str(value))
    config = place.folder / "nginx.conf"
    config.write_text(text, "utf-8")
    command = ["nginx", "-p", str(place.folder), "-c", str(config), "-e", "stderr"]
    with servers.serving(command, port, dict(os.environ), _START_SECONDS) as server:
        yield HttpSide(server, image_filter_path)


@contextmanager
def _ending_descendants(server: MeasuredServer) -> Iterator[None]:
    """End the processes that a server leaves behind when it ends."""
    descendants = psutil.Process(server.process_id).children(recursive=True)
    try:
        yield
    finally:
        # Its first process would replace the others.
        psutil.Process(server.process_id).terminate()
        for process in descendants:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(descendants, _END_SECONDS)


def _peers(folder: Path) -> tuple[Side, ...]:
    installed = Packages(folder.resolve())

    def thumbor() -> str:
        versions = f"{installed.python_version('thumbor')} with Pillow {installed.python_version('pillow')}"
        return f"{versions}, a process for each core, signed URLs, originals and results in files, the feature detector for smart crops"

    def node(package: str) -> str:
        return f"{installed.npm_version(package)} with Node.js {installed.node_version()}"

    def ipx() -> str:
        return f"{node('ipx')} and sharp {installed.npm_version('sharp', 'ipx')}, originals in files; it has no cache"

    def sharp() -> str:
        return f"{node('sharp')} behind a bare HTTP server, with its default settings; it has no cache"

    def next_js() -> str:
        return f"{node('next')} and sharp {installed.npm_version('sharp')}, standalone, originals in `public`, AVIF and WebP"

    def image_filter() -> str:
        return f"of nginx {packages.nginx_version()} behind `proxy_cache`, originals in files"

    modules = installed.node_folder / "node_modules"
    return (
        Side("thumbor", partial(_thumbor, installed=installed), thumbor, partial(installed.missing, installed.thumbor)),
        Side("ipx", partial(_node, installed=installed, script="ipx.mjs", path=ipx_path), ipx, partial(installed.missing, modules / "ipx")),
        Side(
            "sharp",
            partial(_node, installed=installed, script="sharp.mjs", path=sharp_path),
            sharp,
            partial(installed.missing, modules / "sharp"),
        ),
        Side("Next.js", partial(_next, installed=installed), next_js, partial(installed.missing, installed.next_server)),
        Side(
            "image_filter",
            partial(_image_filter, installed=installed),
            image_filter,
            partial(installed.missing, installed.image_filter),
        ),
    )


PEERS = _peers(Path(os.environ["PEERS"])) if os.environ.get("PEERS") else ()
