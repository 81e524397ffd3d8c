"""libjxl, the reference implementation of JPEG XL: its C API (https://libjxl.readthedocs.io/en/latest/api.html), as far as it is used here.

The wheel `imagecodecs` (the extra `jxl`) carries the library. Neither that package nor NumPy, which it needs, is ever imported. The
declarations hold for libjxl 0.11 and 0.12. They are written with ctypes, because cffi would parse C at every start, which takes ten times
as long as loading the library.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import time
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int64, c_size_t, c_ubyte, c_uint32, c_void_p
from enum import IntEnum
from pathlib import Path
from typing import Any

import pyvips

# The libraries of the wheel, in the order in which each finds those that it needs. Their names contain a version and a hash. Little CMS is
# a part of `libjxl_cms` in some wheels.
_LIBRARIES = ("libbrotlicommon-", "libbrotlidec-", "libbrotlienc-", "liblcms2-", "libjxl_cms-", "libjxl-")


class DataType(IntEnum):
    """The type of a sample in memory (`JxlDataType`)."""

    UINT8 = 2
    UINT16 = 3


class ColorSpace(IntEnum):
    """`JxlColorSpace`."""

    RGB = 0
    GRAY = 1


class WhitePoint(IntEnum):
    """`JxlWhitePoint`."""

    D65 = 1


class Primaries(IntEnum):
    """`JxlPrimaries`. P3 has another number than in ITU-T H.273, where 11 is DCI-P3, and 12 is Display P3."""

    SRGB = 1
    REC_2100 = 9
    P3 = 11


class Transfer(IntEnum):
    """`JxlTransferFunction`: code points of ITU-T H.273, table 3."""

    REC_709 = 1
    SRGB = 13
    PQ = 16
    DCI = 17
    HLG = 18
    GAMMA = 65_535


class FrameSetting(IntEnum):
    """`JxlEncoderFrameSettingId`."""

    EFFORT = 0
    RESPONSIVE = 16
    QPROGRESSIVE_AC = 18
    BROTLI_EFFORT = 32


class Encoding(IntEnum):
    """The result of an encoder's function (`JxlEncoderStatus`)."""

    SUCCESS = 0
    ERROR = 1
    NEED_MORE_OUTPUT = 2


class Decoding(IntEnum):
    """The result of a decoder's function, and the events of a decoder (`JxlDecoderStatus`)."""

    SUCCESS = 0
    ERROR = 1
    NEED_MORE_INPUT = 2
    NEED_IMAGE_OUT_BUFFER = 5
    JPEG_NEED_MORE_OUTPUT = 6
    BOX_NEED_MORE_OUTPUT = 7
    BASIC_INFO = 0x40
    COLOR_ENCODING = 0x100
    FRAME = 0x400
    FULL_IMAGE = 0x1000
    JPEG_RECONSTRUCTION = 0x2000
    BOX = 0x4000


class ExtraChannel(IntEnum):
    """The types of extra channels that are used (`JxlExtraChannelType`)."""

    ALPHA = 0
    BLACK = 4


# `JxlColorProfileTarget`.
TARGET_ORIGINAL, TARGET_DATA = 0, 1


class PixelFormat(ctypes.Structure):
    """`JxlPixelFormat`. `endianness` 0 is that of the machine; `align` 0 means that rows follow one another without padding."""

    _fields_ = (("num_channels", c_uint32), ("data_type", c_int), ("endianness", c_int), ("align", c_size_t))


class _PreviewHeader(ctypes.Structure):
    _fields_ = (("xsize", c_uint32), ("ysize", c_uint32))


class _AnimationHeader(ctypes.Structure):
    _fields_ = (("tps_numerator", c_uint32), ("tps_denominator", c_uint32), ("num_loops", c_uint32), ("have_timecodes", c_int))


class BasicInfo(ctypes.Structure):
    """`JxlBasicInfo`."""

    _fields_ = (
        ("have_container", c_int),
        ("xsize", c_uint32),
        ("ysize", c_uint32),
        ("bits_per_sample", c_uint32),
        ("exponent_bits_per_sample", c_uint32),
        ("intensity_target", c_float),
        ("min_nits", c_float),
        ("relative_to_max_display", c_int),
        ("linear_below", c_float),
        ("uses_original_profile", c_int),
        ("have_preview", c_int),
        ("have_animation", c_int),
        ("orientation", c_int),
        ("num_color_channels", c_uint32),
        ("num_extra_channels", c_uint32),
        ("alpha_bits", c_uint32),
        ("alpha_exponent_bits", c_uint32),
        ("alpha_premultiplied", c_int),
        ("preview", _PreviewHeader),
        ("animation", _AnimationHeader),
        ("intrinsic_xsize", c_uint32),
        ("intrinsic_ysize", c_uint32),
        ("padding", c_ubyte * 100),
    )


class ExtraChannelInfo(ctypes.Structure):
    """`JxlExtraChannelInfo`."""

    _fields_ = (
        ("type", c_int),
        ("bits_per_sample", c_uint32),
        ("exponent_bits_per_sample", c_uint32),
        ("dim_shift", c_uint32),
        ("name_length", c_uint32),
        ("alpha_premultiplied", c_int),
        ("spot_color", c_float * 4),
        ("cfa_channel", c_uint32),
    )


class _BlendInfo(ctypes.Structure):
    _fields_ = (("blendmode", c_int), ("source", c_uint32), ("alpha", c_uint32), ("clamp", c_int))


class _LayerInfo(ctypes.Structure):
    _fields_ = (
        ("have_crop", c_int),
        ("crop_x0", ctypes.c_int32),
        ("crop_y0", ctypes.c_int32),
        ("xsize", c_uint32),
        ("ysize", c_uint32),
        ("blend_info", _BlendInfo),
        ("save_as_reference", c_uint32),
    )


class FrameHeader(ctypes.Structure):
    """`JxlFrameHeader`."""

    _fields_ = (
        ("duration", c_uint32),
        ("timecode", c_uint32),
        ("name_length", c_uint32),
        ("is_last", c_int),
        ("layer_info", _LayerInfo),
    )


class ColorEncoding(ctypes.Structure):
    """`JxlColorEncoding`."""

    _fields_ = (
        ("color_space", c_int),
        ("white_point", c_int),
        ("white_point_xy", c_double * 2),
        ("primaries", c_int),
        ("primaries_red_xy", c_double * 2),
        ("primaries_green_xy", c_double * 2),
        ("primaries_blue_xy", c_double * 2),
        ("transfer_function", c_int),
        ("gamma", c_double),
        ("rendering_intent", c_int),
    )


class _CmsInterface(ctypes.Structure):
    """`JxlCmsInterface`: seven pointers to data and functions, and one to the function that reads a profile."""

    _fields_ = (("members", c_void_p * 8),)


_Allocate = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t)
_Free = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
_Initialize = ctypes.CFUNCTYPE(c_int, c_void_p, c_size_t)
_Work = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_size_t)
_Run = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, _Initialize, _Work, c_uint32, c_uint32)

_libc = ctypes.CDLL(None)
_libc.malloc.restype, _libc.malloc.argtypes = c_void_p, (c_size_t,)
_libc.free.restype, _libc.free.argtypes = None, (c_void_p,)

# Allocations of this size and more leave so much address space free.
_LARGE_BYTES, _RESERVED_BYTES = 1 << 20, 24 << 20


class Guard:
    """Watches memory and time while libjxl works. There is one for the process, which does one thing at a time.

    libjxl returns an error if its picture buffers cannot be allocated, but a failure in a container of its C++ library ends the process.
    So large buffers are refused while there is still space for containers. The work is divided into parts (rows of blocks and groups of
    pixels), which libjxl could give to several threads. They run in the calling thread here, as long as its time is not used up.

    out_of_memory, out_of_time: whether the last work ended because of that.
    """

    class _MemoryManager(ctypes.Structure):
        """`JxlMemoryManager`."""

        _fields_ = (("opaque", c_void_p), ("alloc", _Allocate), ("free", _Free))

    def __init__(self) -> None:
        self.out_of_memory = self.out_of_time = False
        self._deadline = 0.0
        self._manager = self._MemoryManager(None, _Allocate(self._allocate), _Free(lambda _, address: _libc.free(address)))
        self.memory_manager = ctypes.byref(self._manager)
        self.runner = _Run(self._run)

    def start(self, seconds: float = float("inf")) -> None:
        """Begin to watch new work.

        seconds: of CPU that this thread may spend on it.
        """
        self.out_of_memory = self.out_of_time = False
        self.limit(seconds)

    def limit(self, seconds: float) -> None:
        """Limit the CPU time that this thread may spend from now on."""
        self._deadline = time.thread_time() + seconds

    def has_space_for(self, size: int) -> bool:
        """Return whether an allocation of `size` bytes would succeed now."""
        # Untouched memory costs only address space.
        address = _libc.malloc(size)
        _libc.free(address)
        return bool(address)

    def _allocate(self, _: int | None, size: int) -> int | None:
        is_refused = size >= _LARGE_BYTES and not self.has_space_for(size + _RESERVED_BYTES)
        address = None if is_refused else int(_libc.malloc(size) or 0) or None
        self.out_of_memory = self.out_of_memory or not address
        return address

    def _run(self, _: int | None, work: int, initialize: Any, do_part: Any, start: int, end: int) -> int:
        """Do all parts of some work (`JxlParallelRunner`). Returns 0, or -1 if that failed."""
        if initialize(work, 1):
            return -1
        for part in range(start, end):
            if time.thread_time() > self._deadline:
                self.out_of_time = True
                return -1
            do_part(work, part, 0)
        return 0


@functools.cache
def guard() -> Guard:
    """Return the guard of this process."""
    return Guard()


# Function → its result and its parameters. Buffers of bytes are passed as addresses.
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "JxlEncoderCreate": (c_void_p, (c_void_p,)),
    "JxlEncoderDestroy": (None, (c_void_p,)),
    "JxlEncoderGetError": (c_int, (c_void_p,)),
    "JxlEncoderInitBasicInfo": (None, (POINTER(BasicInfo),)),
    "JxlEncoderSetBasicInfo": (c_int, (c_void_p, POINTER(BasicInfo))),
    "JxlEncoderSetExtraChannelDistance": (c_int, (c_void_p, c_size_t, c_float)),
    "JxlColorEncodingSetToSRGB": (None, (POINTER(ColorEncoding), c_int)),
    "JxlEncoderSetColorEncoding": (c_int, (c_void_p, POINTER(ColorEncoding))),
    "JxlEncoderSetICCProfile": (c_int, (c_void_p, c_void_p, c_size_t)),
    "JxlEncoderFrameSettingsCreate": (c_void_p, (c_void_p, c_void_p)),
    "JxlEncoderFrameSettingsSetOption": (c_int, (c_void_p, c_int, c_int64)),
    "JxlEncoderSetFrameDistance": (c_int, (c_void_p, c_float)),
    "JxlEncoderSetFrameLossless": (c_int, (c_void_p, c_int)),
    "JxlEncoderAddImageFrame": (c_int, (c_void_p, POINTER(PixelFormat), c_void_p, c_size_t)),
    "JxlEncoderStoreJPEGMetadata": (c_int, (c_void_p, c_int)),
    "JxlEncoderAddJPEGFrame": (c_int, (c_void_p, c_void_p, c_size_t)),
    "JxlEncoderUseBoxes": (c_int, (c_void_p,)),
    "JxlEncoderAddBox": (c_int, (c_void_p, c_char_p, c_void_p, c_size_t, c_int)),
    "JxlEncoderCloseInput": (None, (c_void_p,)),
    "JxlEncoderProcessOutput": (c_int, (c_void_p, POINTER(c_void_p), POINTER(c_size_t))),
    "JxlDecoderCreate": (c_void_p, (c_void_p,)),
    "JxlDecoderDestroy": (None, (c_void_p,)),
    "JxlDecoderSetParallelRunner": (c_int, (c_void_p, _Run, c_void_p)),
    "JxlDecoderSubscribeEvents": (c_int, (c_void_p, c_int)),
    "JxlDecoderSetCms": (c_int, (c_void_p, _CmsInterface)),
    "JxlDecoderSetKeepOrientation": (c_int, (c_void_p, c_int)),
    "JxlDecoderSetUnpremultiplyAlpha": (c_int, (c_void_p, c_int)),
    "JxlDecoderSetDecompressBoxes": (c_int, (c_void_p, c_int)),
    "JxlDecoderSetInput": (c_int, (c_void_p, c_void_p, c_size_t)),
    "JxlDecoderCloseInput": (None, (c_void_p,)),
    "JxlDecoderProcessInput": (c_int, (c_void_p,)),
    "JxlDecoderGetBasicInfo": (c_int, (c_void_p, POINTER(BasicInfo))),
    "JxlDecoderGetExtraChannelInfo": (c_int, (c_void_p, c_size_t, POINTER(ExtraChannelInfo))),
    "JxlDecoderGetFrameHeader": (c_int, (c_void_p, POINTER(FrameHeader))),
    "JxlDecoderGetColorAsEncodedProfile": (c_int, (c_void_p, c_int, POINTER(ColorEncoding))),
    "JxlDecoderGetICCProfileSize": (c_int, (c_void_p, c_int, POINTER(c_size_t))),
    "JxlDecoderGetColorAsICCProfile": (c_int, (c_void_p, c_int, c_void_p, c_size_t)),
    "JxlDecoderSetOutputColorProfile": (c_int, (c_void_p, POINTER(ColorEncoding), c_void_p, c_size_t)),
    "JxlDecoderSetImageOutBuffer": (c_int, (c_void_p, POINTER(PixelFormat), c_void_p, c_size_t)),
    "JxlDecoderSetExtraChannelBuffer": (c_int, (c_void_p, POINTER(PixelFormat), c_void_p, c_size_t, c_uint32)),
    "JxlDecoderSetJPEGBuffer": (c_int, (c_void_p, c_void_p, c_size_t)),
    "JxlDecoderReleaseJPEGBuffer": (c_size_t, (c_void_p,)),
    "JxlDecoderGetBoxType": (c_int, (c_void_p, c_char_p, c_int)),
    "JxlDecoderSetBoxBuffer": (c_int, (c_void_p, c_void_p, c_size_t)),
    "JxlDecoderReleaseBoxBuffer": (c_size_t, (c_void_p,)),
}


def is_installed() -> bool:
    """Return whether libjxl (the extra `jxl`) is installed, without loading it."""
    return _directory() is not None


@functools.cache
def load() -> ctypes.CDLL:
    """Return libjxl with its functions declared. Raises `ImportError` if it is not installed, and `OSError` if it cannot be loaded."""
    directory = _directory()
    if directory is None:
        raise ImportError("libjxl is not installed: it comes with the extra `jxl` (pip install 'darkroom-image-cdn[jxl]')")
    libraries = {prefix: ctypes.CDLL(str(path)) for prefix in _LIBRARIES for path in sorted(directory.glob(f"{prefix}*"))}
    library = libraries["libjxl-"]
    for name, (result, parameters) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, parameters
    return library


@functools.cache
def default_cms() -> _CmsInterface:
    """Return the color management system of the library, with which a decoder converts to any ICC profile."""
    load()
    directory = _directory()
    assert directory is not None  # noqa: S101 - it was loaded from there
    get_default_cms = ctypes.CDLL(str(next(directory.glob("libjxl_cms-*")))).JxlGetDefaultCms
    get_default_cms.restype, get_default_cms.argtypes = POINTER(_CmsInterface), ()
    cms: _CmsInterface = get_default_cms().contents
    return cms


def address(buffer: bytes | bytearray | memoryview) -> int:
    """Return the address of the first byte of a buffer, which must outlive the use of it."""
    return int(pyvips.ffi.cast("uintptr_t", pyvips.ffi.from_buffer(buffer)))


def _directory() -> Path | None:
    """Return the directory of the wheel's libraries, `None` if libjxl is not there."""
    spec = importlib.util.find_spec("imagecodecs")
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent.with_name("imagecodecs.libs")
    return directory if any(directory.glob("libjxl-*")) else None
