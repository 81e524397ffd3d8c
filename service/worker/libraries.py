"""The versions of the C libraries that are in the wheels of the codecs. `service.rendering.floors` has the oldest ones that are safe.

Where a library states its version, in a function of its package or as text in its file, that is taken. libvips' wheel has more libraries
inside than state theirs: for those, the list of versions with which an earlier wheel was built is a lower bound.
"""

from __future__ import annotations

import importlib.metadata
import re
from importlib.util import find_spec
from pathlib import Path

import pyvips

from service.rendering.protocol import Library

# What files of libraries say of themselves. The first group is the version.
_STATEMENTS = {
    "libaom": re.compile(rb"AOMedia Project AV1 (?:Encoder|Decoder) v?(\d+\.\d+\.\d+)"),
    "libpng": re.compile(rb"libpng version (\d+\.\d+\.\d+)"),
    "libarchive": re.compile(rb"libarchive (\d+\.\d+\.\d+)"),
}

# https://github.com/kleisauke/libvips-packaging, versions.properties of 2026-06-09: the libraries in the wheel of libvips 8.18.3.
_LIBVIPS_WHEEL = (8, 18, 3)
_IN_LIBVIPS_WHEEL = {
    "cairo": "1.18.4", "cgif": "0.5.3", "expat": "2.8.1", "freetype": "2.14.3", "harfbuzz": "14.2.1", "lcms2": "2.19.1", "libaom": "3.14.1",
    "libexif": "0.6.26", "libheif": "1.23.0", "libpng": "1.6.58", "librsvg": "2.62.3", "libwebp": "1.6.0", "libxml2": "2.15.3",
    "pango": "1.57.1", "pixman": "0.46.4",
}  # fmt: skip


def installed() -> list[Library]:
    """Return the libraries of the installed wheels that read or write images here."""
    return [*_of_libvips(), *_of_pillow(), *_of_pillow_heif(), *_of_imagecodecs()]


def stated_versions(content: bytes) -> dict[str, str]:
    """Return the libraries, and their versions, that the file of a library names."""
    found = ((name, pattern.search(content)) for name, pattern in _STATEMENTS.items())
    return {name: match[1].decode("ascii") for name, match in found if match is not None}


def _files(wheel: str, folder: str) -> list[Path]:
    """Return the libraries that a wheel's repair tool has put beside the package (`auditwheel`)."""
    spec = find_spec(wheel)
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    root = origin.parent if origin.suffix == ".so" else origin.parent.parent
    return sorted((root / folder).glob("*.so*"))


def _of_libvips() -> list[Library]:
    numbers = tuple(pyvips.version(part) for part in range(3))
    version = ".".join(map(str, numbers))
    libraries = {"libvips": Library("pyvips-binary", "libvips", version)}
    if numbers >= _LIBVIPS_WHEEL:
        libraries |= {name: Library("pyvips-binary", name, known, at_least=True) for name, known in _IN_LIBVIPS_WHEEL.items()}
    for path in _files("_libvips", "pyvips_binary.libs"):
        libraries |= {name: Library("pyvips-binary", name, known) for name, known in stated_versions(path.read_bytes()).items()}
    return sorted(libraries.values(), key=lambda library: library.name)


def _of_pillow() -> list[Library]:
    from PIL import _avif, features  # noqa: PLC0415

    names = {
        "avif": "libavif",
        "freetype2": "freetype",
        "jpg_2000": "openjpeg",
        "libtiff": "libtiff",
        "littlecms2": "lcms2",
        "webp": "libwebp",
    }
    versions = {names[feature]: features.version(feature) for feature in features.get_supported() if feature in names}
    libraries = {name: version for name, version in versions.items() if version is not None}
    # Such as `dav1d [dec]:1.5.3-0-gb546257, aom [enc]:3.14.1`.
    codecs = re.findall(r"(\w+) \[[^\]]*\]:v?([\d.]+)", _avif.codec_versions())
    libraries |= {("libaom" if name == "aom" else name): version for name, version in codecs}
    for path in _files("PIL", "pillow.libs"):
        libraries |= stated_versions(path.read_bytes()) if path.name.startswith("libpng") else {}
    return [Library("pillow", name, version) for name, version in sorted(libraries.items())]


def _of_pillow_heif() -> list[Library]:
    if find_spec("pillow_heif") is None:
        return []
    import pillow_heif  # noqa: PLC0415

    stated = pillow_heif.libheif_info()
    libraries = [
        Library("pillow-heif", "pillow-heif", importlib.metadata.version("pillow-heif")),
        Library("pillow-heif", "libheif", stated["libheif"]),
    ]
    decoder = re.search(r"libde265.*?(\d+\.\d+\.\d+)", str(stated["decoders"]))
    return [*libraries, Library("pillow-heif", "libde265", decoder[1])] if decoder else libraries


def _of_imagecodecs() -> list[Library]:
    # The server loads only these of the many libraries in this wheel (`service/worker/formats/jxl_library.py`), whose names have versions.
    wanted = {"libjxl": "libjxl", "libbrotlidec": "brotli"}
    names = ((path, re.fullmatch(r"(\w+)-[0-9a-f]+\.so\.(\d+\.\d+\.\d+)", path.name)) for path in _files("imagecodecs", "imagecodecs.libs"))
    return [Library("imagecodecs", wanted[match[1]], match[2]) for _, match in names if match is not None and match[1] in wanted]
