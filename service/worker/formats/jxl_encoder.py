"""JPEG XL out (ISO/IEC 18181): encodes pixels, or recompresses a JPEG without loss, with libjxl, in the calling thread."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import byref
from typing import NamedTuple, Self

import msgspec
import pyvips

from service.worker import color
from service.worker.formats import jxl_library
from service.worker.formats.jxl_library import DataType, Encoding, FrameSetting, Primaries, Transfer

# Below this, the distance grows faster, as in `JxlEncoderDistanceFromQuality`.
_STEEP_BELOW_QUALITY = 30

# The signature of the color space in the header of an ICC profile (ICC.1:2022 §7.2.8).
_ICC_COLOR_SPACE = slice(16, 20)

# Efforts from which on the encoder takes more memory, and the longest side of a picture that it holds as a whole at any effort.
_SLOW_EFFORT, _THOROUGH_EFFORT = 6, 8
_MAX_WHOLE_SIDE = 2_048
# And the distance from which on it takes less: a quality of 78 and less.
_COARSE_DISTANCE = 2.0

_FIRST_OUTPUT_BYTES = 1 << 16

# Address space for recompressing a JPEG, measured on noise and photos: per pixel, with coarse pictures first, and per byte of the file.
_RECOMPRESSED_PIXEL_BYTES, _PROGRESSIVE_PIXEL_BYTES, _JPEG_BYTE_BYTES = 62, 104, 9
# Of Brotli, for metadata. More takes seconds for a megabyte, and saves little.
_BROTLI_EFFORT = 5

# The offset of the TIFF header in a box of Exif (ISO/IEC 18181-2 §9.5).
_EXIF_OFFSET = b"\0\0\0\0"

# Coarse pictures first: of the coefficients of lossy pictures, and of the pixels of lossless ones. Coefficients are sent with fewer bits
# first. To send the low frequencies first takes more bytes for a coarser picture, and a separate frame for each 8 × 8 pixels costs quality
# and shows nothing earlier.
_PROGRESSIVE = {FrameSetting.QPROGRESSIVE_AC: 1}
_PROGRESSIVE_LOSSLESS = {FrameSetting.RESPONSIVE: 1}


class EnumeratedColor(NamedTuple):
    """A color space that JPEG XL names, so that no profile is needed. Its white point is D65."""

    primaries: Primaries
    transfer: Transfer


SRGB = EnumeratedColor(Primaries.SRGB, Transfer.SRGB)
DISPLAY_P3 = EnumeratedColor(Primaries.P3, Transfer.SRGB)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a picture is encoded.

    distance: the largest visible difference, in units of butteraugli, 0.01 to 25: 1 is hardly visible. See `distance_of_quality`.
    lossless: keep every sample; `distance` is then without effect.
    effort: of libjxl, 1 (fastest) to 9 (smallest).
    progressive: store coarse pictures first.
    color_space: an ICC profile, or a color space that JPEG XL names. For a gray image only its transfer function counts.
    bits: of a sample, 8 to 16. Samples of 16-bit images are scaled from 65,535 to this.
    max_nits: the luminance of the brightest light of a picture with PQ levels, in cd/m², 0 if it is unknown.
    exif, xmp: metadata to store in boxes; Exif begins with its TIFF header.
    """

    distance: float = 1.0
    lossless: bool = False
    effort: int = 3
    progressive: bool = False
    color_space: EnumeratedColor | bytes = SRGB
    bits: int = 8
    max_nits: float = 0.0
    exif: bytes = b""
    xmp: bytes = b""


def distance_of_quality(quality: int) -> float:
    """Return the distance of a quality, 1 to 100, on the scale of libjxl's own tools, which resembles that of JPEG.

    `JxlEncoderDistanceFromQuality` returns the same, except that it takes 100 for lossless, which is an option of its own here.
    """
    if quality >= _STEEP_BELOW_QUALITY:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality * quality - 23 / 20 * quality + 25


def encode(image: pyvips.Image, settings: Settings) -> bytes:
    """Return `image` as a JPEG XL file: a bare codestream, or a container if it has metadata.

    image: 8 or 16 bits per band, gray or RGB, with or without alpha, which is not premultiplied and is stored without loss.

    Raises `pyvips.Error`, also if libjxl is not installed.
    """
    data_type = DataType.UINT16 if color.is_high_bit_depth(image) else DataType.UINT8
    pixel_format = jxl_library.PixelFormat(image.bands, data_type, 0, 0)
    pixels = image.write_to_memory()
    with _Encoder() as encoder:
        encoder.require_memory(_needed_bytes(image, settings))
        encoder.set_header(image, settings)
        encoder.set_color_space(settings.color_space, gray=color.is_gray(image))
        encoder.add_metadata(settings.exif, settings.xmp)
        frame = encoder.add_frame(settings)
        if image.hasalpha():
            encoder.call("JxlEncoderSetExtraChannelDistance", frame, 0, 0.0)
        encoder.call("JxlEncoderAddImageFrame", frame, byref(pixel_format), jxl_library.address(pixels), len(pixels))
        return encoder.finish()


def recompress(body: memoryview, pixels: int, *, effort: int, progressive: bool) -> bytes:
    """Return a JPEG file as JPEG XL with the same coefficients and all that is needed to restore the file.

    Returns nothing if libjxl refuses it: it is not Huffman-coded with 8 bits in gray or three components, damaged, or more than 4 MB follow
    its end.

    pixels: of the JPEG. effort, progressive: see `Settings`.

    Raises `pyvips.Error` if memory is short, or libjxl not installed.
    """
    with _Encoder() as encoder:
        encoder.require_memory(recompression_bytes(body, pixels, progressive=progressive))
        return encoder.recompress(body, {FrameSetting.EFFORT: effort, **(_PROGRESSIVE if progressive else {})})


def recompression_bytes(body: memoryview, pixels: int, *, progressive: bool) -> int:
    """Return how much address space `recompress` may take."""
    return pixels * (_PROGRESSIVE_PIXEL_BYTES if progressive else _RECOMPRESSED_PIXEL_BYTES) + len(body) * _JPEG_BYTE_BYTES


def _needed_bytes(image: pyvips.Image, settings: Settings) -> int:
    """Return how much address space an encode may take, measured on noise. Large pictures are encoded in parts if they may be."""
    is_whole = max(image.width, image.height) <= _MAX_WHOLE_SIDE or (settings.lossless and settings.progressive)
    if settings.effort >= _THOROUGH_EFFORT:
        pixel_bytes = 340
    elif settings.progressive and not settings.lossless:
        pixel_bytes = 160
    elif not is_whole:
        pixel_bytes = 48
    else:
        pixel_bytes = 110 if settings.lossless or settings.effort >= _SLOW_EFFORT or settings.distance < _COARSE_DISTANCE else 76
    pixels = int(image.width * image.height)
    return pixels * (pixel_bytes + (24 if image.hasalpha() else 0))


class _Encoder:
    """An encoder of libjxl, which is released at the end of a `with` statement. Its methods raise `pyvips.Error`."""

    def __init__(self) -> None:
        try:
            self._library, self._guard = jxl_library.load(), jxl_library.guard()
        except (ImportError, OSError) as error:
            raise pyvips.Error(f"JPEG XL cannot be encoded: {error}") from error

    def __enter__(self) -> Self:
        self._guard.start()
        self._encoder = self._library.JxlEncoderCreate(self._guard.memory_manager)
        if not self._encoder:
            raise pyvips.Error("libjxl: out of memory")
        return self

    def __exit__(self, *_: object) -> None:
        self._library.JxlEncoderDestroy(self._encoder)

    def require_memory(self, size: int) -> None:
        if not self._guard.has_space_for(size):
            raise pyvips.Error(f"libjxl: out of memory: {size} bytes")

    def call(self, name: str, *arguments: object) -> int:
        """Return the result of a function of libjxl. Raises `pyvips.Error` if it is an error."""
        result = int(getattr(self._library, name)(*arguments))
        if result == Encoding.ERROR:
            if self._guard.out_of_memory:
                raise pyvips.Error("libjxl: out of memory")
            raise pyvips.Error(f"libjxl: {name} failed with error {self._library.JxlEncoderGetError(self._encoder):#x}")
        return result

    def set_header(self, image: pyvips.Image, settings: Settings) -> None:
        info = jxl_library.BasicInfo()
        self._library.JxlEncoderInitBasicInfo(byref(info))
        info.xsize, info.ysize, info.bits_per_sample = image.width, image.height, settings.bits
        info.num_color_channels = 1 if color.is_gray(image) else 3
        if image.hasalpha():
            info.num_extra_channels, info.alpha_bits = 1, settings.bits
        info.uses_original_profile = settings.lossless
        # For 0, libjxl takes the peak of the transfer function.
        info.intensity_target = settings.max_nits
        self.call("JxlEncoderSetBasicInfo", self._encoder, byref(info))

    def set_color_space(self, color_space: EnumeratedColor | bytes, *, gray: bool) -> None:
        """Set the color space of the pixels. A profile that libjxl refuses, or that is not of as many bands, is ignored."""
        if isinstance(color_space, bytes):
            profile = color_space
            signature = profile[_ICC_COLOR_SPACE]
            if signature == (b"GRAY" if gray else b"RGB "):
                result = self._library.JxlEncoderSetICCProfile(self._encoder, jxl_library.address(profile), len(profile))
                if result == Encoding.SUCCESS:
                    return
            color_space = SRGB
        encoding = jxl_library.ColorEncoding()
        self._library.JxlColorEncodingSetToSRGB(byref(encoding), gray)
        encoding.primaries, encoding.transfer_function = color_space
        self.call("JxlEncoderSetColorEncoding", self._encoder, byref(encoding))

    def add_metadata(self, exif: bytes, xmp: bytes) -> None:
        """Store Exif, which begins with its TIFF header, and XMP in boxes, unless they are empty."""
        boxes = [(b"Exif", _EXIF_OFFSET + exif)] if exif else []
        boxes += [(b"xml ", xmp)] if xmp else []
        if boxes:
            self.call("JxlEncoderUseBoxes", self._encoder)
        for kind, content in boxes:
            self.call("JxlEncoderAddBox", self._encoder, kind, jxl_library.address(content), len(content), 0)

    def add_frame(self, settings: Settings) -> int:
        """Return the settings of a new frame, a pointer that belongs to the encoder."""
        options = {FrameSetting.EFFORT: settings.effort}
        if settings.progressive:
            options |= _PROGRESSIVE_LOSSLESS if settings.lossless else _PROGRESSIVE
        frame = self._create_frame_settings(options)
        if settings.lossless:
            self.call("JxlEncoderSetFrameLossless", frame, 1)
        else:
            self.call("JxlEncoderSetFrameDistance", frame, settings.distance)
        return frame

    def recompress(self, body: memoryview, options: Mapping[FrameSetting, int]) -> bytes:
        """Return a JPEG as a finished file, nothing if libjxl refuses it."""
        self.call("JxlEncoderStoreJPEGMetadata", self._encoder, 1)
        frame = self._create_frame_settings({**options, FrameSetting.BROTLI_EFFORT: _BROTLI_EFFORT})
        try:
            self.call("JxlEncoderAddJPEGFrame", frame, jxl_library.address(body), len(body))
            return self.finish()
        except pyvips.Error:
            if self._guard.out_of_memory:
                raise
            return b""

    def _create_frame_settings(self, options: Mapping[FrameSetting, int]) -> int:
        frame = int(self._library.JxlEncoderFrameSettingsCreate(self._encoder, None))
        for setting, value in options.items():
            self.call("JxlEncoderFrameSettingsSetOption", frame, setting, value)
        return frame

    def finish(self) -> bytes:
        """Return the finished file."""
        self._library.JxlEncoderCloseInput(self._encoder)
        parts = []
        size = _FIRST_OUTPUT_BYTES
        status: int = Encoding.NEED_MORE_OUTPUT
        while status == Encoding.NEED_MORE_OUTPUT:
            buffer = ctypes.create_string_buffer(size)
            position, left = ctypes.c_void_p(ctypes.addressof(buffer)), ctypes.c_size_t(size)
            status = self.call("JxlEncoderProcessOutput", self._encoder, byref(position), byref(left))
            parts.append(buffer.raw[: size - left.value])
            size *= 2
        return b"".join(parts)
