"""Limits on the structure of raster files: parts besides pixels that would cost a decoder much time or memory are counted before it starts.

Pixels and frames have limits of their own (see `probe`), and so have drawings (see `svg`). Every count stops at its limit, so that checking
a hostile file takes bounded time.
"""

from __future__ import annotations

from service.images.info import Limits
from service.rendering.protocol import Failure, ImageError
from service.worker.formats import gif, isobmff, jpeg, png, tiff, webp

# ICC profile, Exif, XMP and comments of a page, which decoders copy. libvips refuses more than 50 MB in a TIFF.
MAX_METADATA_BYTES = 48 << 20

# Segments of a JPEG, not counting scans. An ICC profile has up to 255 and extended XMP some hundreds.
MAX_SEGMENTS = 4_096
# Programs write 10 scans, at most some dozens; libjpeg-turbo's fuzzers limit them to 500.
MAX_SCANS = 200
# Scans × samples: an empty scan of a progressive JPEG costs about 0.4 ns per sample.
MAX_SCANNED_SAMPLES = 5_000_000_000

# Chunks of a PNG before its pixels, and compressed ones among them; chunks of a WebP, not counting frames; boxes of an ISO base media file.
MAX_CHUNKS = 4_096
MAX_COMPRESSED_CHUNKS = 64

# Items of an AVIF or HEIC: pictures, their tiles, and metadata. libheif has this limit by default.
MAX_ITEMS = 1_000

# Blocks and sub-blocks of a GIF. All sub-blocks but the last of a frame have 255 bytes, so a file of 128 MB has no more than this.
MAX_BLOCKS = 500_000

# Strips or tiles of all pages of a TIFF, each of which costs about 20 µs, and those among them that are JPEGs, whose markers are read.
MAX_PIECES = 200_000
MAX_JPEG_PIECES = 20_000

# Memory per pixel that libheif and the code around it need, measured: for 8 bits per sample, and for more.
HEIF_PIXEL_BYTES = {"avif": (12, 20), "heic": (6, 12)}


def check(body: memoryview, limits: Limits) -> None:
    """Check that decoding a file costs little more than its pixels do.

    Files of unknown formats and broken files pass, because the decoder reports those.

    Raises `ImageError`: `too-complex`, or `too-many-pixels` if it has more frames, or takes more memory to decode, than `limits` allow.
    """
    beginning = bytes(body[:12])
    if jpeg.is_jpeg(body):
        _check_jpeg(body, limits)
    elif beginning.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(body, limits)
    elif beginning.startswith(b"GIF8"):
        _check_gif(body, limits)
    elif beginning.startswith(b"RIFF") and beginning.endswith(b"WEBP"):
        _check_webp(body, limits)
    elif beginning[4:8] in {b"ftyp", b"JXL "}:
        _check_count("boxes", isobmff.count(body, MAX_CHUNKS), MAX_CHUNKS)
        _check_count("items", isobmff.item_count(body), MAX_ITEMS)
    elif beginning[:4] in tiff.SIGNATURES:
        _check_tiff(body, limits)


def _check_jpeg(body: memoryview, limits: Limits) -> None:
    found = jpeg.survey(body, MAX_SCANS, MAX_SEGMENTS)
    _check_decoded_bytes(found.decoded_bytes, body, limits)
    _check_count("scans", found.scans, MAX_SCANS)
    _check_count("samples to decode, counted in each scan", found.scans * found.samples if found.decoded_bytes else 0, MAX_SCANNED_SAMPLES)
    _check_count("segments", found.segments, MAX_SEGMENTS)
    _check_count("bytes of metadata", found.metadata_bytes, MAX_METADATA_BYTES)


def _check_png(body: memoryview, limits: Limits) -> None:
    found = png.survey(body, MAX_CHUNKS)
    _check_count("chunks before its pixels", found.chunks, MAX_CHUNKS)
    _check_count("compressed chunks before its pixels", found.compressed_chunks, MAX_COMPRESSED_CHUNKS)
    _check_count("bytes of metadata", found.metadata_bytes, MAX_METADATA_BYTES)
    _check_decoded_bytes(found.decoded_bytes, body, limits)


def _check_gif(body: memoryview, limits: Limits) -> None:
    found = gif.survey(body, limits.max_frames, MAX_BLOCKS)
    check_frames(found.frames, limits)
    _check_count("blocks", found.blocks, MAX_BLOCKS)
    _check_decoded_bytes(found.decoded_bytes, body, limits)


def _check_webp(body: memoryview, limits: Limits) -> None:
    found = webp.survey(body, limits.max_frames + MAX_CHUNKS)
    check_frames(found.frames, limits)
    _check_count("chunks", found.chunks, limits.max_frames + MAX_CHUNKS)
    _check_decoded_bytes(found.decoded_bytes, body, limits)


def _check_tiff(body: memoryview, limits: Limits) -> None:
    pieces = jpeg_pieces = scanned_samples = 0
    try:
        for number, page in enumerate(tiff.directories(body, MAX_JPEG_PIECES), 1):
            check_frames(number, limits)
            _check_count("entries in a directory", page.entries, tiff.MAX_ENTRIES)
            _check_count("bytes of metadata", page.metadata_bytes, MAX_METADATA_BYTES)
            pieces += page.pieces
            _check_count("strips or tiles", pieces, MAX_PIECES)
            jpeg_pieces += page.pieces if page.jpegs else 0
            _check_count("strips or tiles that are JPEGs", jpeg_pieces, MAX_JPEG_PIECES)
            for start, size in page.jpegs:
                found = jpeg.survey(body[start : start + size], MAX_SCANS, MAX_SEGMENTS)
                scanned_samples += found.scans * found.samples if found.decoded_bytes else 0
                _check_count("samples to decode, counted in each scan", scanned_samples, MAX_SCANNED_SAMPLES)
    except ValueError:
        # A directory lies outside the file: libvips reports it.
        return


def check_heif(image_format: str, pixels: int, body: memoryview, limits: Limits, *, high_bit_depth: bool) -> None:
    """Check that an AVIF or HEIC can be decoded in the memory of a render. Raises `ImageError`, `too-many-pixels`.

    This is separate from `check` because only libheif, which has read the header by now, knows the size of such an image.

    pixels: width × height.
    high_bit_depth: whether it has more than 8 bits per sample.
    """
    _check_decoded_bytes(pixels * HEIF_PIXEL_BYTES[image_format][high_bit_depth], body, limits)


def check_canvas(canvas_bytes: int, body: memoryview, limits: Limits) -> None:
    """Check that the frames of an animation can be decoded, one after another, in the memory of a render.

    canvas_bytes: the memory that its decoder needs for one frame.

    Raises `ImageError`, `too-many-pixels`.
    """
    _check_decoded_bytes(canvas_bytes, body, limits)


def check_frames(frames: int, limits: Limits) -> None:
    """Check the number of frames or pages. Raises `ImageError`, `too-many-pixels`."""
    if frames > limits.max_frames:
        raise ImageError(
            Failure(
                "too-many-pixels",
                "The image has too many frames.",
                expected=f"at most {limits.max_frames} frames or pages",
                received=f"{frames} or more",
                remedy="Shorten it before sending it, or raise DARKROOM_MAX_FRAMES on the server.",
            )
        )


def _check_decoded_bytes(decoded_bytes: int, body: memoryview, limits: Limits) -> None:
    """Check that a full decode, if one is needed, fits in memory together with the file. Raises `ImageError`, `too-many-pixels`.

    decoded_bytes: 0 if no full decode is needed.
    """
    needed_bytes = decoded_bytes + len(body) if decoded_bytes else 0
    if needed_bytes > limits.codec_bytes:
        raise ImageError(
            Failure(
                "too-many-pixels",
                "The image needs a full decode, which takes more memory than a render may have.",
                expected=f"at most {limits.codec_bytes} bytes",
                received=f"{needed_bytes} bytes",
                remedy="Make it smaller, save it without progressive or interlaced mode and with 8 bits per sample, "
                "or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
            )
        )


def _check_count(name: str, count: int, limit: int) -> None:
    """Check that there are at most `limit` parts called `name`. Raises `ImageError`, `too-complex`."""
    if count > limit:
        raise ImageError(
            Failure(
                "too-complex",
                f"The image has too many {name}.",
                expected=f"at most {limit} {name}",
                received=f"{count} or more",
                remedy="Export the image again with default options, and send that.",
            )
        )
