"""The codecs, in a render process: whether they work, how they are confined, and their versions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from service.cli.doctor.finding import Finding, ok
from service.errors import ServiceError
from service.images.formats import FORMATS
from service.rendering.floors import old_libraries
from service.rendering.pool import RenderPool
from service.rendering.protocol import CodecSupport, Sandbox, SelfTest, Tested
from service.settings.environment import Configuration

_TIMEOUT_SECONDS = 60.0


async def check_codecs(configuration: Configuration) -> AsyncIterator[Finding]:
    """Start a render process, have it encode and decode every format, and compare the versions of its libraries with the safe ones."""
    rendering = configuration.settings.rendering
    pool = RenderPool(
        slots=1,
        queue_limit=1,
        memory_bytes=rendering.memory_bytes,
        render_seconds=_TIMEOUT_SECONDS,
        wait_seconds=_TIMEOUT_SECONDS,
    )
    result = await _test(pool)
    if isinstance(result, str):
        yield Finding(
            "render-process",
            "error",
            "No render process can encode and decode a pixel in every format.",
            "one that does",
            result,
            "Run `darkroom serve` and read its log. Starting processes, and at least 256 MiB of address space, must be permitted.",
        )
        return
    tested, support = result
    yield ok("codecs", f"libvips {support.libvips}, {_versions(tested)}.")
    for finding in (_check_formats(support), _check_sandbox(pool.sandbox), *_check_versions(tested)):
        yield finding


async def _test(pool: RenderPool) -> tuple[Tested, CodecSupport] | str:
    """Return the result of a test in a render process, or why there is none."""
    async with pool.running():
        try:
            with anyio.fail_after(_TIMEOUT_SECONDS):
                return await pool.run_in_background(SelfTest(list_libraries=True), Tested), await pool.codec_support()
        except ServiceError as error:
            return error.detail
        except TimeoutError:
            return f"no reply within {_TIMEOUT_SECONDS:g} s"


def _versions(tested: Tested) -> str:
    libraries = {f"{one.name} {'≥ ' if one.at_least else ''}{one.version}" for one in tested.libraries if one.name != "libvips"}
    return ", ".join(sorted(libraries))


def _check_formats(support: CodecSupport) -> Finding:
    missing = [name for name in FORMATS if name not in support.writes]
    if not missing:
        return ok("formats", f"Renditions in {', '.join(support.writes)}.")
    return Finding(
        "formats",
        "note",
        f"No renditions in {', '.join(missing)}.",
        ", ".join(FORMATS),
        ", ".join(support.writes),
        "Install the extra for JPEG XL: pip install 'darkroom-image-cdn[jxl]'."
        if "jxl" in missing
        else "Install a libvips with these encoders.",
    )


def _check_sandbox(sandbox: Sandbox | None) -> Finding:
    if sandbox is not None and not sandbox.missing:
        return ok("sandbox", "Render processes are confined by Landlock and seccomp.")
    missing = "Landlock and seccomp" if sandbox is None else " and ".join(sandbox.missing)
    return Finding(
        "sandbox",
        "warning",
        "An exploited image decoder could reach everything that the server can reach.",
        "render processes that are confined by Landlock and seccomp",
        f"none of {missing}" if sandbox is None else f"no {missing}",
        "Use Linux 5.13 or later with Landlock enabled, and a container whose seccomp profile allows the landlock_* system calls.",
    )


def _check_versions(tested: Tested) -> list[Finding]:
    found = []
    for old in old_libraries(tested.libraries):
        library, floor = old.library, old.floor
        found.append(
            Finding(
                "vulnerable-library" if old.certain else "unknown-version",
                "error" if old.certain else "note",
                f"{library.name} in the package {library.wheel} has {floor.cve}: {floor.about}."
                if old.certain
                else f"{library.name} in the package {library.wheel} does not state its version, and may have {floor.cve}: {floor.about}.",
                f"{floor.version} or later",
                f"{'at least ' if library.at_least else ''}{library.version}",
                f"Update Darkroom, or the package: pip install --upgrade {library.wheel}.",
            )
        )
    return found
