"""JPEG XL files of every kind, written with libjxl's encoder, including those that the service never writes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_int, c_size_t, c_uint32, c_void_p
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.worker.formats import jxl_library
from service.worker.formats.jxl_library import Encoding, ExtraChannel, FrameSetting, Primaries, Transfer

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]

_TYPES = {"float32": 0, "uint8": 2, "uint16": 3}
_WITH_ALPHA = frozenset({2, 4})
# `JXL_CHANNEL_DEPTH`: a channel that is no part of the picture.
DEPTH = 1


class Colors(NamedTuple):
    """A color space that a file names. gamma: of the encoding, such as 1/2.2, for `Transfer.GAMMA`."""

    primaries: int = Primaries.SRGB
    transfer: int = Transfer.SRGB
    gamma: float = 0.0


def encode(
    frames: Sequence[Samples],
    *,
    extra: Sequence[tuple[int, Samples]] = (),
    colors: Colors | bytes = Colors(),  # noqa: B008 - it is immutable
    bits: int = 0,
    orientation: int = 1,
    premultiplied: bool = False,
    durations: Sequence[int] = (),
    loops: int = 0,
    crops: Sequence[tuple[int, int]] = (),
    boxes: Sequence[tuple[bytes, bytes, bool]] = (),
    lossless: bool = True,
    container: bool = False,
    settings: dict[int, int] | None = None,
) -> bytes:
    """Return a file.

    frames: each height × width × samples (gray, gray and alpha, RGB, or RGBA) of one type. extra: further channels, each its type (see
    `ExtraChannel` and `DEPTH`) and its samples, height × width, the same in all frames. colors: or an ICC profile. bits: of
    a sample, by default those of the type. durations: in milliseconds, which make it an animation. crops: left and top of each frame,
    which may be smaller than the first one. boxes: the type and content, and whether to compress it. settings: of the frames.
    """
    first = frames[0]
    height, width, bands = first.shape
    library = _declared(jxl_library.load())
    encoder = library.JxlEncoderCreate(None)

    def call(name: str, *arguments: object) -> None:
        if getattr(library, name)(*arguments) != Encoding.SUCCESS:
            raise ValueError(f"{name} failed with error {library.JxlEncoderGetError(encoder):#x}")

    try:
        if container:
            call("JxlEncoderUseContainer", encoder, 1)
        info = jxl_library.BasicInfo()
        library.JxlEncoderInitBasicInfo(byref(info))
        info.xsize, info.ysize, info.orientation = width, height, orientation
        info.bits_per_sample = bits or first.dtype.itemsize * 8
        info.exponent_bits_per_sample = 8 if first.dtype == np.float32 else 0
        info.num_color_channels, info.uses_original_profile = (3 if bands > 2 else 1), lossless
        alpha = bands in _WITH_ALPHA
        if alpha:
            info.alpha_bits, info.alpha_exponent_bits = info.bits_per_sample, info.exponent_bits_per_sample
            info.alpha_premultiplied = premultiplied
        info.num_extra_channels = alpha + len(extra)
        if durations:
            info.have_animation, info.animation.tps_numerator, info.animation.tps_denominator = 1, 1_000, 1
            info.animation.num_loops = loops
        if len(extra) > 3 or any(kind == ExtraChannel.BLACK for kind, _ in extra):
            call("JxlEncoderSetCodestreamLevel", encoder, 10)
        call("JxlEncoderSetBasicInfo", encoder, byref(info))
        for index, (kind, samples) in enumerate(extra, int(alpha)):
            channel = jxl_library.ExtraChannelInfo()
            library.JxlEncoderInitExtraChannelInfo(kind, byref(channel))
            channel.bits_per_sample = samples.dtype.itemsize * 8
            call("JxlEncoderSetExtraChannelInfo", encoder, index, byref(channel))
        _set_colors(library, call, encoder, colors, gray=bands < 3)
        _add_boxes(call, encoder, boxes)
        for number, pixels in enumerate(frames):
            frame = library.JxlEncoderFrameSettingsCreate(encoder, None)
            for setting, value in {FrameSetting.EFFORT: 1, **(settings or {})}.items():
                call("JxlEncoderFrameSettingsSetOption", frame, setting, value)
            call("JxlEncoderSetFrameLossless", frame, 1) if lossless else call("JxlEncoderSetFrameDistance", frame, 0.5)
            header = _header(library, pixels, durations[number] if durations else 0, crops[number] if crops else None)
            call("JxlEncoderSetFrameHeader", frame, byref(header))
            data = np.ascontiguousarray(pixels)
            form = jxl_library.PixelFormat(bands, _TYPES[data.dtype.name], 0, 0)
            call("JxlEncoderAddImageFrame", frame, byref(form), data.ctypes.data, data.nbytes)
            for index, (_, samples) in enumerate(extra, int(alpha)):
                plane = np.ascontiguousarray(samples)
                form = jxl_library.PixelFormat(1, _TYPES[plane.dtype.name], 0, 0)
                call("JxlEncoderSetExtraChannelBuffer", frame, byref(form), plane.ctypes.data, plane.nbytes, index)
        library.JxlEncoderCloseInput(encoder)
        return _output(library, encoder)
    finally:
        library.JxlEncoderDestroy(encoder)


def _set_colors(library: Any, call: Any, encoder: int, colors: Colors | bytes, *, gray: bool) -> None:
    if isinstance(colors, bytes):
        call("JxlEncoderSetICCProfile", encoder, jxl_library.address(colors), len(colors))
        return
    encoding = jxl_library.ColorEncoding()
    library.JxlColorEncodingSetToSRGB(byref(encoding), gray)
    encoding.primaries, encoding.transfer_function, encoding.gamma = colors
    call("JxlEncoderSetColorEncoding", encoder, byref(encoding))


def _add_boxes(call: Any, encoder: int, boxes: Sequence[tuple[bytes, bytes, bool]]) -> None:
    if boxes:
        call("JxlEncoderUseBoxes", encoder)
    for kind, content, compressed in boxes:
        call("JxlEncoderAddBox", encoder, kind, jxl_library.address(content), len(content), int(compressed))


def _header(library: Any, pixels: Samples, duration: int, place: tuple[int, int] | None) -> jxl_library.FrameHeader:
    header = jxl_library.FrameHeader()
    library.JxlEncoderInitFrameHeader(byref(header))
    header.duration = duration
    if place is not None:
        layer = header.layer_info
        layer.have_crop, (layer.crop_x0, layer.crop_y0) = 1, place
        layer.ysize, layer.xsize = pixels.shape[:2]
        # Blended over the frame before, which is kept for that.
        layer.blend_info.blendmode = 2 if pixels.shape[2] in _WITH_ALPHA else 0
        layer.blend_info.source = layer.save_as_reference = 1
    return header


def _output(library: Any, encoder: int) -> bytes:
    out, status = b"", int(Encoding.NEED_MORE_OUTPUT)
    while status == Encoding.NEED_MORE_OUTPUT:
        buffer = ctypes.create_string_buffer(1 << 20)
        position, left = c_void_p(ctypes.addressof(buffer)), c_size_t(len(buffer))
        status = library.JxlEncoderProcessOutput(encoder, byref(position), byref(left))
        out += buffer.raw[: len(buffer) - left.value]
    if status != Encoding.SUCCESS:
        raise ValueError(f"the encoder failed with error {library.JxlEncoderGetError(encoder):#x}")
    return out


def _declared(library: Any) -> Any:
    """Return libjxl with the functions declared that only tests use."""
    functions: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "JxlEncoderUseContainer": (c_int, (c_void_p, c_int)),
        "JxlEncoderSetCodestreamLevel": (c_int, (c_void_p, c_int)),
        "JxlEncoderInitExtraChannelInfo": (None, (c_int, c_void_p)),
        "JxlEncoderSetExtraChannelInfo": (c_int, (c_void_p, c_size_t, c_void_p)),
        "JxlEncoderSetExtraChannelBuffer": (c_int, (c_void_p, c_void_p, c_void_p, c_size_t, c_uint32)),
        "JxlEncoderInitFrameHeader": (None, (c_void_p,)),
        "JxlEncoderSetFrameHeader": (c_int, (c_void_p, c_void_p)),
    }
    for name, (result, parameters) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, parameters
    return library
