"""JPEG XL in (ISO/IEC 18181): decodes bare codestreams and containers with libjxl, in the calling thread."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from ctypes import byref
from itertools import islice
from typing import Self

import msgspec
import pyvips

from service.rendering.protocol import Failure, ImageError
from service.worker import color
from service.worker.color_space import (
    DISPLAY_P3_PRIMARIES,
    PRIMARIES,
    REC_2020_PRIMARIES,
    SRGB_PRIMARIES,
    ColorSpace,
    Curve,
    from_video_code_points,
)
from service.worker.color_space import Primaries as Chromaticities
from service.worker.failures import broken_image
from service.worker.formats import jxl_library
from service.worker.formats.animation import Animation, Timing
from service.worker.formats.jxl_library import (
    TARGET_DATA,
    TARGET_ORIGINAL,
    DataType,
    Decoding,
    ExtraChannel,
    Primaries,
    Transfer,
    WhitePoint,
)

# The beginnings of a bare codestream and of a container (ISO/IEC 18181-1 §6, 18181-2 §9.1).
_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")

# CPU time that a picture may take: some time more per pixel than the slowest modes of the format need. A few bytes can declare large frames
# that are never shown.
_SECONDS, _SECONDS_PER_PIXEL = 5.0, 250e-9

# Exif, XMP and other boxes of metadata, decompressed.
MAX_METADATA_BYTES = 48 << 20
_FIRST_BOX_BYTES = 1 << 16
# Exif begins with the offset of its TIFF header (ISO/IEC 18181-2 §9.5).
_EXIF_OFFSET_BYTES = 4

_HEADER_EVENTS = Decoding.BASIC_INFO | Decoding.COLOR_ENCODING | Decoding.FRAME
_PICTURE_EVENTS = Decoding.BASIC_INFO | Decoding.COLOR_ENCODING | Decoding.FRAME | Decoding.FULL_IMAGE
_RESTORED_EVENTS = Decoding.BASIC_INFO | Decoding.COLOR_ENCODING | Decoding.JPEG_RECONSTRUCTION | Decoding.FULL_IMAGE
_BYTE_BITS = 8

_PRIMARIES: Mapping[int, int] = {
    Primaries.SRGB: SRGB_PRIMARIES,
    Primaries.REC_2100: REC_2020_PRIMARIES,
    Primaries.P3: DISPLAY_P3_PRIMARIES,
}
# Curves that Chromium applies to gray pictures as libjxl defines them, the first of which inverts the camera curve of ITU-R BT.709. In
# pictures with colors it applies those of `color_space`.
_GRAY_CURVES: Mapping[int, Curve] = {
    Transfer.REC_709: (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081),
    Transfer.DCI: (2.6,),
}


class Header(msgspec.Struct, frozen=True):
    """The header of a file.

    width, height: in pixels, upright.
    frames: that are shown one after another.
    channels: of a pixel: its colors, alpha, black and all that are not shown.
    sample_bytes: of a decoded sample, 1 or 2.
    high_dynamic_range: whether levels are PQ or HLG.
    """

    width: int
    height: int
    frames: int
    channels: int
    sample_bytes: int
    alpha: bool
    high_dynamic_range: bool

    @property
    def decoded_bytes(self) -> int:
        """How much memory decoding a frame takes, measured: the picture twice, and planes of 32 bits for each channel."""
        return self.width * self.height * self.channels * (2 * self.sample_bytes + _WORKING_BYTES)


# Working memory of the decoder for each sample: planes of a frame that is blended or predicted from, and coefficients.
_WORKING_BYTES = 12


def is_jxl(beginning: bytes) -> bool:
    """Return whether a file is JPEG XL, given its first 12 bytes."""
    return beginning.startswith(_SIGNATURES)


def is_installed() -> bool:
    """Return whether libjxl (the extra `jxl`) is installed, without loading it."""
    return jxl_library.is_installed()


def check_installed() -> None:
    """Check that JPEG XL can be decoded. Raises `ImageError`, `unsupported`."""
    if not is_installed():
        raise ImageError(
            Failure(
                "unsupported",
                "This is a JPEG XL image, which this server cannot decode.",
                expected="an installation with the extra `jxl` (pip install 'darkroom-image-cdn[jxl]')",
                received="JPEG XL",
                remedy="Export it as PNG or JPEG and send that, or install the extra on the server.",
            )
        )


def read_header(body: memoryview, max_frames: int) -> Header:
    """Return the header of a file. Counting the frames of an animation stops at `max_frames` + 1. Raises `ImageError`, `broken`."""
    with _Decoder(body, _HEADER_EVENTS) as decoder:
        frames = 0
        for event in decoder.events():
            if event == Decoding.COLOR_ENCODING:
                decoder.read_color_space()
            frames += event == Decoding.FRAME
            if frames and (not decoder.info.have_animation or frames > max_frames):
                break
        info = decoder.info
        return Header(
            info.xsize,
            info.ysize,
            frames,
            info.num_color_channels + info.num_extra_channels,
            2 if decoder.is_high_bit_depth else 1,
            bool(info.alpha_bits),
            decoder.is_high_dynamic_range,
        )


def decode(body: memoryview, frame: int = 0) -> pyvips.Image:
    """Return a frame of a file, the first being 0, upright and in memory, with its ICC profile.

    The image has 8 or 16 bits per band: gray, RGB or CMYK, with alpha if the file has it, not premultiplied. PQ and HLG levels are marked
    (see `hdr`). The orientation in the codestream is applied, and that of the Exif is ignored (ISO/IEC 18181-2 §9.5), so the image has no
    orientation. A JPEG that was recompressed without loss is a picture like any other.

    Raises `ImageError`: `broken`, `too-complex`, or `too-costly` if memory does not suffice.
    """
    return next(islice(_decode_frames(body, frame + 1), frame, None))


def open_animation(body: memoryview, frames: int) -> Animation:
    """Return the first `frames` frames of a file, each as from `decode`. Raises as `decode` does."""
    with _Decoder(body, _HEADER_EVENTS) as decoder:
        seconds = [decoder.frame_seconds() for event in decoder.events() if event == Decoding.FRAME]
        loops = int(decoder.info.animation.num_loops)
    delays = [round(duration * 1_000) for duration in seconds[:frames]]
    return Animation(Timing(delays, loops), lambda: _decode_frames(body, frames))


def check_complete(body: memoryview, frames: int) -> None:
    """Check that all frames decode. Raises as `decode` does."""
    for _ in _decode_frames(body, frames):
        pass


def restores(body: bytes, jpeg: memoryview, orientation: int, profile: bytes) -> bool:
    """Return whether a JPEG XL holds `jpeg` byte by byte, and shows it with these colors and turned like this.

    orientation: as in Exif, 1 to 8. profile: ICC, empty for sRGB.

    Raises `ImageError`, `too-costly`, if memory does not suffice.
    """
    restored = bytearray(len(jpeg))
    try:
        with _Decoder(memoryview(body), _RESTORED_EVENTS) as decoder:
            decoder.keep_orientation()
            for event in decoder.events():
                if event == Decoding.COLOR_ENCODING and (decoder.info.orientation != orientation or decoder.stored_profile() != profile):
                    return False
                if event == Decoding.JPEG_RECONSTRUCTION:
                    decoder.set_jpeg_buffer(restored)
                elif event in {Decoding.NEED_IMAGE_OUT_BUFFER, Decoding.JPEG_NEED_MORE_OUTPUT}:
                    return False
                elif event == Decoding.FULL_IMAGE:
                    return decoder.finish_jpeg() == 0 and restored == jpeg
    except ImageError as error:
        if error.failure.short_of_memory:
            raise
    return False


def _decode_frames(body: memoryview, count: int) -> Iterator[pyvips.Image]:
    """Yield the first `count` frames of a file."""
    with _Decoder(body, _PICTURE_EVENTS) as decoder:
        found = 0
        for event in decoder.events():
            if event == Decoding.COLOR_ENCODING:
                decoder.read_color_space()
            elif event == Decoding.NEED_IMAGE_OUT_BUFFER:
                decoder.set_buffers()
            elif event == Decoding.FULL_IMAGE:
                found += 1
                yield decoder.take_frame()
                if found == count:
                    return
                decoder.limit_time()
    raise ImageError(broken_image("jxl", f"it has {found} frames"))


def read_metadata(body: memoryview) -> tuple[bytes, bytes]:
    """Return the Exif of a file, from its TIFF header on, and the XMP; empty without them.

    Raises `ImageError`, `broken` or `too-complex`.
    """
    if body[:2] == _SIGNATURES[0]:
        return b"", b""
    blocks: dict[bytes, bytes] = {}
    with _Decoder(body, Decoding.BOX) as decoder:
        for event in decoder.events():
            if event == Decoding.BOX:
                blocks |= decoder.finish_box()
                decoder.start_box()
            elif event == Decoding.BOX_NEED_MORE_OUTPUT:
                decoder.enlarge_box()
        blocks |= decoder.finish_box()
    exif = blocks.get(b"Exif", b"")
    return exif[_EXIF_OFFSET_BYTES + int.from_bytes(exif[:_EXIF_OFFSET_BYTES], "big") :], blocks.get(b"xml ", b"")


class _Decoder:
    """A decoder of libjxl, which is released at the end of a `with` statement. Its methods raise `ImageError`."""

    def __init__(self, body: memoryview, events: int) -> None:
        self._body = body
        self._events = events
        self._library, self._guard = jxl_library.load(), jxl_library.guard()
        self.info = jxl_library.BasicInfo()
        self._space: ColorSpace | bytes = b""
        self._black: int | None = None
        self._pixels = self._black_pixels = bytearray()
        self._box_kind = b""
        self._box = bytearray()
        self._box_position = 0

    def __enter__(self) -> Self:
        self._guard.start(_SECONDS)
        self._decoder = self._library.JxlDecoderCreate(self._guard.memory_manager)
        if not self._decoder:
            raise ImageError(_too_costly())
        self._call("JxlDecoderSetParallelRunner", self._guard.runner, None)
        self._call("JxlDecoderSetCms", jxl_library.default_cms())
        self._call("JxlDecoderSetUnpremultiplyAlpha", 1)
        self._call("JxlDecoderSetDecompressBoxes", 1)
        self._call("JxlDecoderSubscribeEvents", self._events)
        self._call("JxlDecoderSetInput", jxl_library.address(self._body), len(self._body))
        self._library.JxlDecoderCloseInput(self._decoder)
        return self

    def __exit__(self, *_: object) -> None:
        self._library.JxlDecoderDestroy(self._decoder)

    def events(self) -> Iterator[int]:
        """Yield the events up to the end of the file. A file that ends early, or is broken, raises `ImageError`."""
        while (event := int(self._library.JxlDecoderProcessInput(self._decoder))) != Decoding.SUCCESS:
            if event in {Decoding.ERROR, Decoding.NEED_MORE_INPUT}:
                raise ImageError(self._failure("it ends early" if event == Decoding.NEED_MORE_INPUT else "it holds errors"))
            if event == Decoding.BASIC_INFO:
                self._read_info()
            yield event

    @property
    def is_high_bit_depth(self) -> bool:
        """Whether samples are decoded to 16 bits."""
        return bool(self.info.bits_per_sample > _BYTE_BITS or self.info.exponent_bits_per_sample)

    @property
    def is_high_dynamic_range(self) -> bool:
        """Whether levels are PQ or HLG."""
        return isinstance(self._space, ColorSpace) and self._space.is_hdr

    def limit_time(self) -> None:
        """Limit the time for the next frame."""
        self._guard.limit(_SECONDS + self.info.xsize * self.info.ysize * _SECONDS_PER_PIXEL)

    def frame_seconds(self) -> float:
        """Return how long the frame that begins is shown, 0 in a file without animation."""
        header, clock = jxl_library.FrameHeader(), self.info.animation
        self._call("JxlDecoderGetFrameHeader", byref(header))
        return float(header.duration * clock.tps_denominator / clock.tps_numerator) if clock.tps_numerator else 0.0

    def read_color_space(self) -> None:
        """Find out the color space of the decoded pixels: that of the original picture, whatever the file holds."""
        encoding, size = jxl_library.ColorEncoding(), ctypes.c_size_t()
        if self._succeeds("JxlDecoderGetColorAsEncodedProfile", TARGET_ORIGINAL, byref(encoding)):
            self._space = _color_space(encoding)
            return
        if not self._succeeds("JxlDecoderGetICCProfileSize", TARGET_ORIGINAL, byref(size)):
            return
        profile = ctypes.create_string_buffer(size.value)
        self._call("JxlDecoderGetColorAsICCProfile", TARGET_ORIGINAL, profile, size.value)
        if not self.info.uses_original_profile and not self._succeeds("JxlDecoderSetOutputColorProfile", None, profile, size.value):
            # A profile that libjxl cannot convert to: the pixels will be in a space that has a name.
            self._call("JxlDecoderGetColorAsEncodedProfile", TARGET_DATA, byref(encoding))
            self._space = _color_space(encoding)
            return
        self._space = profile.raw

    def keep_orientation(self) -> None:
        """Leave frames turned as they are stored."""
        self._call("JxlDecoderSetKeepOrientation", 1)

    def stored_profile(self) -> bytes:
        """Return the ICC profile of a file with its original colors, empty for sRGB and its gray."""
        encoding, size = jxl_library.ColorEncoding(), ctypes.c_size_t()
        is_named = self._succeeds("JxlDecoderGetColorAsEncodedProfile", TARGET_ORIGINAL, byref(encoding))
        if is_named and _color_space(encoding).is_srgb:
            return b""
        self._call("JxlDecoderGetICCProfileSize", TARGET_ORIGINAL, byref(size))
        profile = ctypes.create_string_buffer(size.value)
        self._call("JxlDecoderGetColorAsICCProfile", TARGET_ORIGINAL, profile, size.value)
        return profile.raw

    def set_jpeg_buffer(self, jpeg: bytearray) -> None:
        """Give the decoder memory for the JPEG that was recompressed."""
        self._call("JxlDecoderSetJPEGBuffer", jxl_library.address(jpeg), len(jpeg))

    def finish_jpeg(self) -> int:
        """Return how many bytes of that memory are unused."""
        return int(self._library.JxlDecoderReleaseJPEGBuffer(self._decoder))

    def set_buffers(self) -> None:
        """Give the decoder new memory for the pixels of a frame."""
        bands = self.info.num_color_channels + bool(self.info.alpha_bits)
        self._pixels = self._buffer(bands)
        pixel_format = self._pixel_format(bands)
        self._call("JxlDecoderSetImageOutBuffer", byref(pixel_format), jxl_library.address(self._pixels), len(self._pixels))
        if self._black is not None:
            self._black_pixels = self._buffer(1)
            black_format = self._pixel_format(1)
            address = jxl_library.address(self._black_pixels)
            self._call("JxlDecoderSetExtraChannelBuffer", byref(black_format), address, len(self._black_pixels), self._black)

    def take_frame(self) -> pyvips.Image:
        """Return the frame that was decoded."""
        info, colors = self.info, self.info.num_color_channels
        image = self._image(self._pixels, colors + bool(info.alpha_bits))
        deep = self.is_high_bit_depth
        if self._black is not None:
            inks = image.extract_band(0, n=3).bandjoin(self._image(self._black_pixels, 1))
            # JPEG XL has no ink at the highest level, libvips at 0.
            inks = inks.invert()
            image = inks.bandjoin(image.extract_band(3)) if info.alpha_bits else inks
            image = image.copy(interpretation="cmyk")
        else:
            names = ("grey16", "rgb16") if deep else ("b-w", "srgb")
            image = image.copy(interpretation=names[colors > 1])
        if isinstance(self._space, ColorSpace):
            return color.assign(image, self._space)
        image = image.copy()
        if self._space:
            image.set_type(pyvips.GValue.blob_type, "icc-profile-data", self._space)
        return image

    def start_box(self) -> None:
        """Begin to read the content of a box, if it is metadata that is used."""
        kind = ctypes.create_string_buffer(4)
        self._call("JxlDecoderGetBoxType", kind, 1)
        if kind.raw in {b"Exif", b"xml "}:
            self._box_kind, self._box, self._box_position = kind.raw, bytearray(_FIRST_BOX_BYTES), 0
            self._call("JxlDecoderSetBoxBuffer", jxl_library.address(self._box), len(self._box))

    def enlarge_box(self) -> None:
        """Make room for more content of the box."""
        self._box_position = len(self._box) - self._library.JxlDecoderReleaseBoxBuffer(self._decoder)
        if len(self._box) >= MAX_METADATA_BYTES:
            raise ImageError(_too_complex(f"{MAX_METADATA_BYTES} bytes of metadata"))
        self._box = self._box[: self._box_position] + bytearray(max(_FIRST_BOX_BYTES, self._box_position))
        left = len(self._box) - self._box_position
        self._call("JxlDecoderSetBoxBuffer", jxl_library.address(self._box) + self._box_position, left)

    def finish_box(self) -> dict[bytes, bytes]:
        """Return the content of the box that was read, by its type; nothing if none was."""
        if not self._box_kind:
            return {}
        end = len(self._box) - self._library.JxlDecoderReleaseBoxBuffer(self._decoder)
        kind, self._box_kind = self._box_kind, b""
        return {kind: bytes(self._box[:end])}

    def _read_info(self) -> None:
        self._call("JxlDecoderGetBasicInfo", byref(self.info))
        self.limit_time()
        for index in range(self.info.num_extra_channels):
            channel = jxl_library.ExtraChannelInfo()
            self._call("JxlDecoderGetExtraChannelInfo", index, byref(channel))
            if channel.type == ExtraChannel.BLACK and self.info.num_color_channels > 1 and self.info.uses_original_profile:
                self._black = index

    def _pixel_format(self, bands: int) -> jxl_library.PixelFormat:
        return jxl_library.PixelFormat(bands, DataType.UINT16 if self.is_high_bit_depth else DataType.UINT8, 0, 0)

    def _buffer(self, bands: int) -> bytearray:
        try:
            return bytearray(self.info.xsize * self.info.ysize * bands * (2 if self.is_high_bit_depth else 1))
        except MemoryError as error:
            raise ImageError(_too_costly()) from error

    def _image(self, pixels: bytearray, bands: int) -> pyvips.Image:
        sample_format = "ushort" if self.is_high_bit_depth else "uchar"
        return pyvips.Image.new_from_memory(pixels, self.info.xsize, self.info.ysize, bands, sample_format)

    def _succeeds(self, name: str, *arguments: object) -> bool:
        return bool(getattr(self._library, name)(self._decoder, *arguments) == Decoding.SUCCESS)

    def _call(self, name: str, *arguments: object) -> None:
        if not self._succeeds(name, *arguments):
            raise ImageError(self._failure(f"{name} failed"))

    def _failure(self, cause: str) -> Failure:
        if self._guard.out_of_memory:
            return _too_costly()
        return _too_complex("frames or pixels that are not shown") if self._guard.out_of_time else broken_image("jxl", cause)


def _color_space(encoding: jxl_library.ColorEncoding) -> ColorSpace:
    """Return a color space that the file names or describes by numbers.

    The peak of PQ and HLG is the assumed one. Chromium ignores the one that a file states (`intensity_target`): most encoders leave it at
    the 10,000 cd/m² of PQ.
    """
    gray = encoding.color_space != jxl_library.ColorSpace.RGB
    curve = from_video_code_points(SRGB_PRIMARIES, encoding.transfer_function).transfer
    if encoding.transfer_function == Transfer.GAMMA and encoding.gamma > 0:
        curve = (1 / encoding.gamma,)
    elif gray:
        curve = _GRAY_CURVES.get(encoding.transfer_function, curve)
    named = _PRIMARIES.get(encoding.primaries) if encoding.white_point == WhitePoint.D65 else None
    if named is not None or gray:
        return ColorSpace(PRIMARIES[named or SRGB_PRIMARIES], curve)
    fields = (encoding.primaries_red_xy, encoding.primaries_green_xy, encoding.primaries_blue_xy, encoding.white_point_xy)
    red, green, blue, white = ((float(x), float(y)) for x, y in fields)
    return ColorSpace(Chromaticities(red, green, blue, white), curve)


def _too_complex(parts: str) -> Failure:
    return Failure(
        "too-complex",
        f"The image has too many {parts}.",
        expected="a picture that decodes in the usual time for its size",
        received="one that takes longer",
        remedy="Export the image again with default options, and send that.",
    )


def _too_costly() -> Failure:
    return Failure(
        "too-costly",
        "This JPEG XL image needs more memory to decode than a render may have.",
        remedy="Send a smaller image, or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
        short_of_memory=True,
    )
