"""JPEG XL for Pillow, which cannot read it: decoded by imagecodecs, so that tests open renditions of every format in one way."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from service.worker.formats import jxl_library
from service.worker.formats.jxl_library import Decoding

_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


class JxlImageFile(ImageFile.ImageFile):
    """The first frame of a JPEG XL file with 8 bits per sample, its Exif and XMP, and its ICC profile, if it is not sRGB."""

    format: ClassVar[str] = "JXL"  # type: ignore[misc]
    format_description: ClassVar[str] = "JPEG XL"  # type: ignore[misc]

    def _open(self) -> None:
        import imagecodecs  # noqa: PLC0415 - it is slow to import

        assert self.fp is not None
        content = self.fp.read()
        try:
            pixels = np.asarray(imagecodecs.jpegxl_decode(content))
        except imagecodecs.JpegxlError as error:
            raise SyntaxError(str(error)) from error
        if pixels.dtype == np.uint16:
            pixels = np.round(pixels / 257).astype(np.uint8)
        self._decoded = Image.fromarray(pixels)
        self._mode, self._size = self._decoded.mode, self._decoded.size
        if profile := icc_profile(content):
            self.info["icc_profile"] = profile
        boxes = boxes_of(content)
        if b"Exif" in boxes:
            # It begins with the offset of its TIFF header.
            self.info["exif"] = b"Exif\0\0" + boxes[b"Exif"][4:]
        if b"xml " in boxes:
            self.info["xmp"] = boxes[b"xml "]
        self.tile = []

    def load(self) -> Any:
        self.im = self._decoded.im
        return self._decoded.load()


def _save(image: Image.Image, file: IO[bytes], _: object) -> None:
    import imagecodecs  # noqa: PLC0415 - it is slow to import

    distance = _distance(image.encoderinfo.get("quality", 90))
    file.write(imagecodecs.jpegxl_encode(np.asarray(image), distance=distance, effort=5))


def _distance(quality: int) -> float:
    """Return the distance of a quality as cjxl does, from 30 on."""
    return 0.1 + (100 - quality) * 0.09


@contextmanager
def _decoder(content: bytes, events: int) -> Iterator[tuple[ctypes.CDLL, Any]]:
    """Return a context that yields libjxl and a decoder of it, which has a file as its input and stops at `events`."""
    library = jxl_library.load()
    decoder = library.JxlDecoderCreate(None)
    try:
        library.JxlDecoderSubscribeEvents(decoder, events)
        library.JxlDecoderSetInput(decoder, jxl_library.address(content), len(content))
        yield library, decoder
    finally:
        library.JxlDecoderDestroy(decoder)


def icc_profile(content: bytes) -> bytes:
    """Return the ICC profile of the decoded pixels, empty for sRGB."""
    with _decoder(content, Decoding.COLOR_ENCODING) as (library, decoder):
        assert library.JxlDecoderProcessInput(decoder) == Decoding.COLOR_ENCODING
        encoding, size = jxl_library.ColorEncoding(), ctypes.c_size_t()
        found = library.JxlDecoderGetColorAsEncodedProfile(decoder, jxl_library.TARGET_DATA, ctypes.byref(encoding)) == 0
        if found and (encoding.color_space == 1 or encoding.primaries == 1) and encoding.transfer_function == 13:
            return b""
        assert library.JxlDecoderGetICCProfileSize(decoder, jxl_library.TARGET_DATA, ctypes.byref(size)) == 0
        profile = ctypes.create_string_buffer(size.value)
        assert library.JxlDecoderGetColorAsICCProfile(decoder, jxl_library.TARGET_DATA, profile, size.value) == 0
        return profile.raw


def shown_of_part(content: bytes, length: int, width: int, height: int) -> Image.Image:
    """Return what a viewer shows of a picture with three channels as soon as it has the first `length` bytes."""
    library = jxl_library.load()
    library.JxlDecoderFlushImage.argtypes = (ctypes.c_void_p,)
    decoder = library.JxlDecoderCreate(None)
    part, pixels = content[:length], bytearray(width * height * 3)
    try:
        library.JxlDecoderSubscribeEvents(decoder, Decoding.FULL_IMAGE)
        library.JxlDecoderSetInput(decoder, jxl_library.address(part), len(part))
        while (event := library.JxlDecoderProcessInput(decoder)) == Decoding.NEED_IMAGE_OUT_BUFFER:
            pixel_format = jxl_library.PixelFormat(3, jxl_library.DataType.UINT8, 0, 0)
            library.JxlDecoderSetImageOutBuffer(decoder, ctypes.byref(pixel_format), jxl_library.address(pixels), len(pixels))
        assert event == Decoding.FULL_IMAGE or library.JxlDecoderFlushImage(decoder) == Decoding.SUCCESS
        return Image.frombytes("RGB", (width, height), bytes(pixels))
    finally:
        library.JxlDecoderDestroy(decoder)


def boxes_of(content: bytes) -> dict[bytes, bytes]:
    """Return the contents of the boxes of a container, decompressed, by their types; of several of one type, the last."""
    import imagecodecs  # noqa: PLC0415 - it is slow to import

    boxes: dict[bytes, bytes] = {}
    position = 0
    while not content.startswith(b"\xff\x0a") and position < len(content):
        size = int.from_bytes(content[position : position + 4], "big") or len(content) - position
        kind, inside = content[position + 4 : position + 8], content[position + 8 : position + size]
        boxes |= {inside[:4]: bytes(imagecodecs.brotli_decode(inside[4:]))} if kind == b"brob" else {kind: inside}
        position += size
    return boxes


def restored_jpeg(content: bytes) -> bytes | None:
    """Return the JPEG that was recompressed as a JPEG XL, `None` if the file cannot restore one."""
    jpeg = bytearray(8 * len(content) + 1_000_000)
    with _decoder(content, Decoding.JPEG_RECONSTRUCTION | Decoding.FULL_IMAGE) as (library, decoder):
        library.JxlDecoderCloseInput(decoder)
        if library.JxlDecoderProcessInput(decoder) != Decoding.JPEG_RECONSTRUCTION:
            return None
        assert library.JxlDecoderSetJPEGBuffer(decoder, jxl_library.address(jpeg), len(jpeg)) == Decoding.SUCCESS
        assert library.JxlDecoderProcessInput(decoder) == Decoding.FULL_IMAGE
        return bytes(jpeg[: len(jpeg) - library.JxlDecoderReleaseJPEGBuffer(decoder)])


class NamedColors(NamedTuple):
    """The color space that a JPEG XL file names, by the numbers of libjxl; its peak in cd/m², and the bits of a sample."""

    white_point: int
    primaries: int
    transfer: int
    max_nits: float
    bits: int


def named_colors(content: bytes) -> NamedColors | None:
    """Return the color space of a file as libjxl's decoder finds it, `None` if the file has an ICC profile."""
    with _decoder(content, Decoding.COLOR_ENCODING) as (library, decoder):
        assert library.JxlDecoderProcessInput(decoder) == Decoding.COLOR_ENCODING
        info, encoding = jxl_library.BasicInfo(), jxl_library.ColorEncoding()
        assert library.JxlDecoderGetBasicInfo(decoder, ctypes.byref(info)) == 0
        if library.JxlDecoderGetColorAsEncodedProfile(decoder, jxl_library.TARGET_ORIGINAL, ctypes.byref(encoding)):
            return None
        return NamedColors(
            encoding.white_point, encoding.primaries, encoding.transfer_function, info.intensity_target, info.bits_per_sample
        )


Image.register_open(JxlImageFile.format, JxlImageFile, lambda beginning: beginning.startswith(_SIGNATURES))
Image.register_save(JxlImageFile.format, _save)
Image.register_mime(JxlImageFile.format, "image/jxl")
