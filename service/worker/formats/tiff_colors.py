"""The colors of a TIFF page (TIFF 6.0): those that libvips does not convert, those that nothing here can, and which sample is alpha."""

from __future__ import annotations

import struct
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import pyvips

from service.rendering.protocol import Failure
from service.worker import color
from service.worker.formats import tiff

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _INK_SET, _EXTRA, _FORMAT = 258, 259, 262, 277, 284, 332, 338, 339
_TILES, _COEFFICIENTS, _SUBSAMPLING, _REFERENCE = 324, 529, 530, 532

# PhotometricInterpretation → how many samples of a pixel are colors.
_WHITE_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR, _CIELAB, _ICCLAB, _LOGLUV = 0, 2, 3, 5, 6, 8, 9, 32_845
_LAB = frozenset({_CIELAB, _ICCLAB})
_COLOR_SAMPLES = {_WHITE_IS_ZERO: 1, 1: 1, _RGB: 3, _PALETTE: 1, _SEPARATED: 4, _YCBCR: 3, _CIELAB: 3, _ICCLAB: 3, _LOGLUV: 3}
_OTHER_PHOTOMETRICS = {
    4: "a transparency mask", 10: "ITU Lab colors", 32_803: "the unprocessed mosaic of a camera's sensor", 32_844: "LogL luminance",
    34_892: "the unprocessed linear values of a camera's sensor",
}  # fmt: skip

_OLD_JPEG, _JPEG, _SGI_LOG = 6, 7, frozenset({34_676, 34_677})
_COMPRESSIONS = {
    2: "CCITT RLE", 3: "CCITT Group 3", 4: "CCITT Group 4", 5: "LZW", 6: "old-style JPEG", 7: "JPEG", 8: "Deflate", 9: "JBIG", 10: "JBIG",
    32_766: "NeXT", 32_771: "CCITT RLE", 32_773: "PackBits", 32_809: "ThunderScan", 32_946: "Deflate", 33_003: "JPEG 2000",
    33_004: "JPEG 2000", 33_005: "JPEG 2000", 34_661: "JBIG", 34_676: "SGI Log", 34_677: "SGI Log", 34_712: "JPEG 2000", 34_887: "LERC",
    34_892: "lossy JPEG", 34_925: "LZMA", 34_933: "PNG", 34_934: "JPEG XR", 50_000: "Zstandard", 50_001: "WebP", 50_002: "JPEG XL",
    52_546: "JPEG XL",
}  # fmt: skip
_USUAL_COMPRESSIONS = frozenset({1, 5, 7, 8, 32_773, 32_946})
# libtiff's messages about a compression that it was built without, or that it does not know.
_NO_DECODER = ("compression support is not configured", "decoding is not implemented")

_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_ASSOCIATED, _UNASSOCIATED = 1, 2
_NOT_CMYK = 2

# Defaults of TIFF 6.0 §21: the shares of red and blue in luma (ITU-R BT.601), and the codes of black and white in Y, Cb and Cr.
_LUMA_SHARES = (0.299, 0.114)
_REFERENCE_CODES = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
_CODING_RANGES = (255, 127, 127)

# Pages whose tags are corrected. No more are accepted by default.
_MAX_PAGES = 1_000


class PageColors(NamedTuple):
    """The tags of a page that say what its samples mean.

    samples: per pixel. bits, sample_format: of each sample; the tuples have one element if all are equal.
    extra: the meaning of each sample after the colors: 0 for none, 1 for associated (premultiplied) alpha, 2 for unassociated alpha.
    subsampling: horizontal and vertical. luma_shares: of red and blue. reference_codes: of black and white in Y, Cb and Cr.
    """

    photometric: int
    compression: int
    samples: int
    bits: tuple[int, ...]
    sample_format: tuple[int, ...]
    planar: bool
    tiled: bool
    extra: tuple[int, ...]
    ink_set: int
    subsampling: tuple[int, ...]
    luma_shares: tuple[float, ...]
    reference_codes: tuple[float, ...]

    @property
    def color_samples(self) -> int:
        """How many samples of a pixel are colors."""
        return _COLOR_SAMPLES.get(self.photometric, self.samples)

    @property
    def alpha(self) -> int | None:
        """The index of the sample that is alpha, `None` if there is none.

        Without the tag ExtraSamples, a single additional sample is alpha: many programs write it so.
        """
        extra = self.extra or ((_UNASSOCIATED,) if self.samples == self.color_samples + 1 else ())
        # Counted from the end, because this must also hold after `relabel`.
        indexes = (index for index, meaning in enumerate(extra, self.samples - len(extra)) if meaning in {_ASSOCIATED, _UNASSOCIATED})
        return next((index for index in indexes if index > 0), None)

    @property
    def is_subsampled(self) -> bool:
        """Whether it is YCbCr with fewer samples of color than of luma, and not compressed as a JPEG, whose decoder handles that."""
        return self.photometric == _YCBCR and self.compression != _JPEG and self.subsampling != (1, 1)

    @property
    def is_misread(self) -> bool:
        """Whether libvips misreads its samples: any Lab, and separate planes of everything but RGB and CMYK."""
        planes = self.planar and self.samples > 1 and not self.is_subsampled and self.compression != _JPEG
        return self.photometric in _LAB or (planes and self.photometric not in {_RGB, _SEPARATED, _PALETTE, _LOGLUV})


def of_pages(body: memoryview) -> list[PageColors]:
    """Return the colors of all pages, as far as the file can be read."""
    return [_of_directory(directory) for directory in _directories(body)]


def of_page(body: memoryview, number: int) -> PageColors | None:
    """Return the colors of one page, the first being 0; `None` if there is no such page."""
    return next((_of_directory(directory) for directory in islice(_directories(body), number, None)), None)


def relabel(body: memoryview) -> memoryview:
    """Return a file whose pages are labeled as RGB if libvips would misread them: the same object if there are none, otherwise a copy.

    libvips then returns the samples unchanged, and `convert` makes colors of them.
    """
    order = "<" if bytes(body[:2]) == b"II" else ">"
    misread = [directory.locate(_PHOTOMETRIC) for directory in _directories(body) if _of_directory(directory).is_misread]
    if not misread:
        return body
    changed = bytearray(body)
    for position in misread:
        struct.pack_into(f"{order}H", changed, position or 0, _RGB)
    return memoryview(changed)


def convert(image: pyvips.Image, page: PageColors) -> pyvips.Image:
    """Return an opened page as gray, RGB, CMYK or Lab and at most one more band, alpha, by which the colors are not multiplied.

    page: of the file as it is stored, before `relabel`.
    """
    if page.photometric == _PALETTE:
        return image
    if page.is_subsampled:
        # libtiff has converted it to RGBA.
        return image.extract_band(0, n=3)
    colors = image if image.bands == page.color_samples else image.extract_band(0, n=page.color_samples)
    if page.photometric in _LAB:
        colors = _rgb_from_lab(colors, page)
    elif page.photometric == _YCBCR and page.compression != _JPEG:
        colors = _rgb_from_ycbcr(colors, page)
    elif page.is_misread:
        gray = colors.copy(interpretation="grey16" if color.is_high_bit_depth(colors) else "b-w")
        colors = gray.invert() if page.photometric == _WHITE_IS_ZERO else gray
    if page.alpha is None or page.alpha >= image.bands:
        return colors
    # libvips has already divided the colors by it if they were multiplied.
    alpha = image.extract_band(page.alpha)
    if page.photometric in _LAB and page.bits == (16,):
        alpha = (alpha / 257).rint().cast("uchar")
    return colors.bandjoin(alpha).copy(interpretation=colors.interpretation)


def is_incomplete(image: pyvips.Image) -> bool:
    """Return whether part of an opened page with subsampled colors is missing although libvips reports no error; this decodes the page.

    libtiff converts such a page to RGBA, and leaves pixels transparent that it cannot decode.
    """
    return bool(image.bands > 3 and image.extract_band(3).min() < 255)


def unsupported(page: PageColors) -> Failure | None:
    """Return the failure of a page with colors or a compression that nothing here decodes, `None` for any other page."""
    if page.compression == _OLD_JPEG:
        return _unsupported(_compression(page))
    reason = _unsupported_colors(page) or _unsupported_layout(page)
    return _unsupported(reason) if reason else None


def explain(body: memoryview, message: str = "") -> Failure | None:
    """Return the failure of a file that libvips did not decode if that is because of its colors or compression, otherwise `None`.

    message: from libvips.
    """
    pages = of_pages(body)
    if any(text in message for text in _NO_DECODER):
        unusual = (page for page in pages if page.compression not in _USUAL_COMPRESSIONS)
        return next((_unsupported(_compression(page)) for page in unusual), None)
    return next((failure for page in pages if (failure := unsupported(page))), None)


def _compression(page: PageColors) -> str:
    return f"{_COMPRESSIONS.get(page.compression, 'an unknown')} compression ({page.compression})"


def _unsupported(reason: str) -> Failure:
    return Failure(
        "unsupported",
        f"This TIFF image has {reason}, which is not supported.",
        expected="gray, palette, RGB, YCbCr, CMYK or Lab colors, compressed with LZW, Deflate, PackBits, JPEG or CCITT fax, or not at all",
        received=reason,
        remedy="Export it as a TIFF in RGB with LZW compression, or as PNG, and send that.",
    )


def _unsupported_colors(page: PageColors) -> str:
    photometric = page.photometric
    if photometric not in _COLOR_SAMPLES or (photometric == _LOGLUV and page.compression not in _SGI_LOG):
        return _OTHER_PHOTOMETRICS.get(photometric, f"the unknown photometric interpretation {photometric}")
    if photometric == _SEPARATED and (page.ink_set == _NOT_CMYK or page.samples - len(page.extra) < page.color_samples):
        return "inks other than cyan, magenta, yellow and black"
    if page.samples < page.color_samples:
        return f"{page.samples} samples per pixel where {page.color_samples} are needed"
    return ""


def _unsupported_layout(page: PageColors) -> str:
    bits = page.bits[0]
    allowed = {8} if page.photometric == _YCBCR else {8, 16, 32}
    if page.color_samples == 1 and page.samples == 1:
        allowed |= {1, 2, 4}
    if page.photometric == _PALETTE:
        allowed -= {16, 32}
    if len(page.bits) > 1 or bits not in allowed:
        return f"samples of {' and '.join(map(str, page.bits))} bits"
    if reason := _unsupported_samples(page, bits, page.sample_format[0]):
        return reason
    if page.planar and page.samples > 1 and (page.tiled or page.is_subsampled or page.photometric == _PALETTE):
        return "separate planes of tiles, of subsampled colors, or of a palette and alpha"
    if page.is_misread and page.photometric not in _LAB and bits == 16 and _ASSOCIATED in page.extra:
        return "separate planes of 16 bits with associated alpha"
    return ""


def _unsupported_samples(page: PageColors, bits: int, sample_format: int) -> str:
    if sample_format == _FLOAT and bits == 16:
        return "floating-point samples of 16 bits"
    if sample_format == _SIGNED and page.photometric == _YCBCR:
        return "signed samples of YCbCr"
    if sample_format != _FLOAT and bits == 32 and page.photometric in _LAB:
        return "whole numbers of 32 bits as Lab colors"
    return ""


def _rgb_from_ycbcr(image: pyvips.Image, page: PageColors) -> pyvips.Image:
    """Return the RGB of three bands of Y, Cb and Cr (TIFF 6.0 §21)."""
    blacks, whites = page.reference_codes[::2], page.reference_codes[1::2]
    scales = [span / ((white - black) or 1) for span, black, white in zip(_CODING_RANGES, blacks, whites, strict=True)]
    offsets = [-black * scale for black, scale in zip(blacks, scales, strict=True)]
    red, blue = page.luma_shares
    green = 1 - red - blue
    matrix = [
        [1, 0, 2 - 2 * red],
        [1, -blue * (2 - 2 * blue) / green, -red * (2 - 2 * red) / green],
        [1, 2 - 2 * blue, 0],
    ]
    rgb = image.linear(scales, offsets).recomb(pyvips.Image.new_from_array(matrix))
    return rgb.rint().cast("uchar").copy(interpretation="srgb")


def _rgb_from_lab(image: pyvips.Image, page: PageColors) -> pyvips.Image:
    """Return the sRGB of three bands of Lab that were read as if they were RGB (TIFF 6.0 §23, and TIFF Technical Note 4 for ICCLab).

    White is D50, as in ICC profiles and Photoshop. Only libvips writes Lab in floating point; it takes D65, and converts it itself.
    """
    signed = page.photometric == _CIELAB
    if page.bits == (8,):
        levels = image.copy(format="uchar")
        lightness, chroma = levels.extract_band(0) * (100 / 255), levels.extract_band(1, n=2).cast("short")
        chroma = (chroma + 128) % 256 - 128 if signed else chroma - 128
    elif page.bits == (16,):
        levels = image.copy(format="ushort")
        # White is 65,535 in CIELab, and 65,280 in the encoding of ICC profiles (ICC.1:2001-04, 6.3.4.2).
        lightness, chroma = levels.extract_band(0) * (100 / (65_535 if signed else 65_280)), levels.extract_band(1, n=2).cast("int")
        chroma = ((chroma + 32_768) % 65_536 - 32_768 if signed else chroma - 32_768) / 256
    else:
        return image.copy(interpretation="lab")
    lab = lightness.bandjoin(chroma).cast("float").copy(interpretation="lab")
    return color.remove_profile(lab.icc_export(output_profile="srgb", intent=color.RENDERING_INTENT, depth=8))


def _directories(body: memoryview) -> list[tiff.Directory]:
    found: list[tiff.Directory] = []
    # If a directory lies outside the file, libvips reports it.
    with suppress(ValueError):
        found.extend(islice(tiff.directories(body, 0), _MAX_PAGES))
    return found


def _of_directory(directory: tiff.Directory) -> PageColors:
    def first(tag: int, default: int) -> int:
        return next(iter(directory.read(tag, 1)), default)

    def distinct(tag: int, default: int) -> tuple[int, ...]:
        return tuple(dict.fromkeys(directory.read(tag, samples))) or (default,)

    def fractions(tag: int, count: int) -> tuple[float, ...]:
        numbers = directory.read(tag, count)
        pairs = zip(numbers[::2], numbers[1::2], strict=True) if len(numbers) == 2 * count else ()
        return tuple(float(Fraction(above, below)) if below else 0.0 for above, below in pairs)

    samples = first(_SAMPLES, 1)
    shares = fractions(_COEFFICIENTS, 3)
    return PageColors(
        photometric=first(_PHOTOMETRIC, 1),
        compression=first(_COMPRESSION, 1),
        samples=samples,
        bits=distinct(_BITS, 1),
        sample_format=distinct(_FORMAT, _UNSIGNED),
        planar=first(_PLANAR, 1) == 2,
        tiled=bool(directory.read(_TILES, 1)),
        extra=tuple(directory.read(_EXTRA, samples)),
        ink_set=first(_INK_SET, 1),
        subsampling=tuple(directory.read(_SUBSAMPLING, 2)) or (2, 2),
        luma_shares=(shares[0], shares[2]) if shares and shares[0] + shares[2] < 1 else _LUMA_SHARES,
        reference_codes=fractions(_REFERENCE, 6) or _REFERENCE_CODES,
    )
