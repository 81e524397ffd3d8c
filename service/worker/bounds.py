"""Bounds before work: what a raster file holds beyond its pixels that would cost a decoder time or memory, counted before it begins.

Pixels and frames are limits of their own (see `probe`). Each count here ends at its bound, so that a look costs a bounded time whatever
comes; a drawing is looked at by `svg`.
"""

from __future__ import annotations

from service.images.info import Limits
from service.rendering.protocol import Failure, ImageError
from service.worker.formats import gif, isobmff, jpeg, png, tiff, webp

# Profiles, Exif, XMP, comments, of a page. Decoders copy them; libvips itself refuses more than 50 MB of a TIFF's.
MAX_METADATA_BYTES = 48 << 20

# Segments of a JPEG besides scans; a profile has up to 255, extended XMP some hundreds.
MAX_SEGMENTS = 4_096
# Programs write 10 scans, the most careful ones some dozens; fuzzers of libjpeg-turbo bound them at 500.
MAX_SCANS = 200
# Scans x samples: an empty scan of a progressive JPEG costs some 0.4 ns a sample.
MAX_SCANNED_SAMPLES = 5_000_000_000

# Chunks of a PNG before its pixels, and those of them that must be decompressed; chunks of a WebP besides frames; boxes of an AVIF or HEIC.
MAX_CHUNKS = 4_096
MAX_COMPRESSED_CHUNKS = 64

# Blocks and sub-blocks of a GIF. A sub-block has 255 bytes but for the last of each frame: 128 MB have no more.
MAX_BLOCKS = 500_000

# Strips or tiles of all pages of a TIFF, of which each costs some 20 us, and those of them that are JPEGs, which are looked at.
MAX_PIECES = 200_000
MAX_JPEG_PIECES = 20_000
MAX_ENTRIES = 4_096


# Bytes that libheif and what is around it hold for each pixel, of 8 bits a sample and of more, measured.
_HEIF_PIXEL_BYTES = {"avif": (12, 20), "heic": (6, 12)}


def check(body: memoryview, limits: Limits) -> None:
    """Return if a file holds nothing that costs much more than its pixels do.

    Raises `ImageError`: `too-complex`, or `too-many-pixels` where it has more frames, or needs more memory to decode, than `limits` allow.
    Returns for whatever is no image of a format that is known here, and for a broken one: others say so.
    """
    beginning = bytes(body[:12])
    if beginning.startswith(b"\xff\xd8\xff"):
        _check_jpeg(body, limits)
    elif beginning.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(body, limits)
    elif beginning.startswith(b"GIF8"):
        _check_gif(body, limits)
    elif beginning.startswith(b"RIFF") and beginning.endswith(b"WEBP"):
        _check_webp(body, limits)
    elif beginning[4:8] == b"ftyp":
        _check_most("boxes", isobmff.count(body, MAX_CHUNKS), MAX_CHUNKS)
    elif beginning.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        _check_tiff(body, limits)


def _check_jpeg(body: memoryview, limits: Limits) -> None:
    found = jpeg.survey(body, MAX_SCANS, MAX_SEGMENTS)
    _check_whole_bytes(found.whole_bytes, body, limits)
    _check_most("scans", found.scans, MAX_SCANS)
    _check_most("samples to decode, each scan counted", found.scans * found.samples if found.whole_bytes else 0, MAX_SCANNED_SAMPLES)
    _check_most("segments", found.segments, MAX_SEGMENTS)
    _check_most("bytes of metadata", found.metadata_bytes, MAX_METADATA_BYTES)


def _check_png(body: memoryview, limits: Limits) -> None:
    found = png.survey(body, MAX_CHUNKS)
    _check_most("chunks before its pixels", found.chunks, MAX_CHUNKS)
    _check_most("compressed chunks before its pixels", found.compressed, MAX_COMPRESSED_CHUNKS)
    _check_most("bytes of metadata", found.metadata_bytes, MAX_METADATA_BYTES)
    _check_whole_bytes(found.whole_bytes, body, limits)


def _check_gif(body: memoryview, limits: Limits) -> None:
    found = gif.survey(body, limits.max_frames, MAX_BLOCKS)
    check_frames(found.frames, limits)
    _check_most("blocks", found.blocks, MAX_BLOCKS)
    _check_whole_bytes(found.whole_bytes, body, limits)


def _check_webp(body: memoryview, limits: Limits) -> None:
    found = webp.survey(body, limits.max_frames + MAX_CHUNKS)
    check_frames(found.frames, limits)
    _check_most("chunks", found.chunks, limits.max_frames + MAX_CHUNKS)
    _check_whole_bytes(found.whole_bytes, body, limits)


def _check_tiff(body: memoryview, limits: Limits) -> None:
    pieces = scanned = looked_at = 0
    try:
        for number, page in enumerate(tiff.directories(body, MAX_JPEG_PIECES), 1):
            check_frames(number, limits)
            _check_most("entries in a directory", page.entries, MAX_ENTRIES)
            _check_most("bytes of metadata", page.metadata_bytes, MAX_METADATA_BYTES)
            pieces += page.pieces
            _check_most("strips or tiles", pieces, MAX_PIECES)
            looked_at += page.pieces if page.jpegs else 0
            _check_most("strips or tiles that are JPEGs", looked_at, MAX_JPEG_PIECES)
            for start, size in page.jpegs:
                found = jpeg.survey(body[start : start + size], MAX_SCANS, MAX_SEGMENTS)
                scanned += found.scans * found.samples if found.whole_bytes else 0
                _check_most("samples to decode, each scan counted", scanned, MAX_SCANNED_SAMPLES)
    except ValueError:
        # Cut short: libvips says so.
        return


def check_heif(image_format: str, pixels: int, body: memoryview, limits: Limits, *, deep: bool) -> None:
    """Return if an AVIF or HEIC of so many pixels fits in the memory of a render, `deep` with more than 8 bits a sample.

    Raises `ImageError`, `too-many-pixels`. Unlike the others such a file tells its size to libheif alone, which looks at no pixel for it.
    """
    _check_whole_bytes(pixels * _HEIF_PIXEL_BYTES[image_format][deep], body, limits)


def check_frames(frames: int, limits: Limits) -> None:
    """Return if a file has no more frames or pages than `limits` allow; raises `ImageError`, `too-many-pixels`."""
    if frames > limits.max_frames:
        raise ImageError(
            Failure(
                "too-many-pixels",
                "The image has more frames than are taken.",
                expected=f"at most {limits.max_frames} frames or pages",
                received=f"{frames} or more",
                remedy="Make it shorter before sending it, or raise DARKROOM_MAX_FRAMES on the server.",
            )
        )


def _check_whole_bytes(decoded: int, body: memoryview, limits: Limits) -> None:
    """Return if what a decoder must hold at once, and the file, fit in its memory; raises `ImageError`, `too-many-pixels`."""
    whole_bytes = decoded + len(body) if decoded else 0
    if whole_bytes > limits.codec_bytes:
        raise ImageError(
            Failure(
                "too-many-pixels",
                "The image decodes as a whole, and that takes more memory than a render may have.",
                expected=f"at most {limits.codec_bytes} bytes",
                received=f"{whole_bytes} bytes",
                remedy="Make it smaller, save it neither progressive nor interlaced nor with 16 bits, "
                "or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
            )
        )


def _check_most(what: str, count: int, most: int) -> None:
    """Return if there is no more of something than is decoded; raises `ImageError`, `too-complex`."""
    if count > most:
        raise ImageError(
            Failure(
                "too-complex",
                f"The image has more {what} than are taken.",
                expected=f"at most {most} {what}",
                received=f"{count} or more",
                remedy="Export the image again in an ordinary way, and send that.",
            )
        )
