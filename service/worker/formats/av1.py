"""AV1: reads and changes the color description in a sequence header (AV1 Bitstream & Decoding Process Specification, §5.5)."""

from __future__ import annotations

from typing import NamedTuple

from service.worker import color_space

# The header of a still picture has some 20 bytes, after a temporal delimiter of 2.
MAX_HEADER_BYTES = 256

_SEQUENCE_HEADER = 1
_MAX_UNITS = 8
_SELECT = 2
_MAX_UVLC_ZEROS = 32
_HIGH_PROFILE, _PROFESSIONAL_PROFILE = 1, 2
# Primaries, transfer and matrix of sRGB without conversion to YCbCr, for which the range is always full.
_SRGB_CODE_POINTS = (1, 13, 0)


class SequenceHeader(NamedTuple):
    """The color description of a stream: code points of ITU-T H.273, and whether its levels fill the range."""

    primaries: int
    transfer: int
    full_range: bool


def sequence_header(stream: bytes) -> SequenceHeader | None:
    """Return the color description of a stream, `None` if it does not begin with a sequence header."""
    start, end = _sequence_unit(stream)
    if start == end:
        return None
    bits = _Bits(stream[start:end])
    return _color_config(bits, _skip_to_colors(bits))


def with_colors(stream: bytes, primaries: int, transfer: int) -> bytes:
    """Return a stream whose color description has other code points and the same matrix.

    Raises `ValueError` if the stream has no color description.
    """
    start, end = _sequence_unit(stream)
    bits = _Bits(stream[start:end])
    _is_monochrome(bits, _skip_to_colors(bits))
    if not bits.number(1):
        raise ValueError("a stream without a color description")
    left = 8 * (end - start) - bits.position - 16
    mask = 0xFFFF << left
    value = int.from_bytes(stream[start:end], "big") & ~mask | (primaries << 8 | transfer) << left
    return stream[:start] + value.to_bytes(end - start, "big") + stream[end:]


def _sequence_unit(stream: bytes) -> tuple[int, int]:
    """Return the start and the end of the content of the sequence header, both 0 if a stream does not begin with one."""
    position = 0
    for _ in range(_MAX_UNITS):
        header = stream[position : position + 1]
        if not header:
            break
        kind, has_extension, has_size = header[0] >> 3 & 15, header[0] >> 2 & 1, header[0] >> 1 & 1
        position += 1 + has_extension
        size, position = _leb128(stream, position) if has_size else (len(stream) - position, position)
        if kind == _SEQUENCE_HEADER:
            return position, min(position + size, len(stream))
        position += size
    return 0, 0


def _leb128(stream: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(stream[position : position + 8]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, position + index + 1
    return value, len(stream)


def _skip_to_colors(bits: _Bits) -> int:
    """Skip what comes before the color configuration, and return the profile."""
    profile = bits.number(3)
    bits.number(1)
    is_reduced = bool(bits.number(1))
    if is_reduced:
        bits.number(5)
    else:
        _skip_operating_points(bits)
    _skip_frame_size(bits, is_reduced=is_reduced)
    if not is_reduced:
        _skip_inter_tools(bits)
    bits.number(3)
    return profile


def _skip_operating_points(bits: _Bits) -> None:
    has_decoder_model, delay_bits = 0, 0
    if bits.number(1):
        bits.number(32)
        bits.number(32)
        if bits.number(1):
            bits.skip_uvlc()
        has_decoder_model = bits.number(1)
        if has_decoder_model:
            delay_bits = bits.number(5) + 1
            bits.number(32 + 5 + 5)
    has_initial_delay = bits.number(1)
    for _ in range(bits.number(5) + 1):
        bits.number(12)
        if bits.number(5) > 7:
            bits.number(1)
        if has_decoder_model and bits.number(1):
            bits.number(2 * delay_bits + 1)
        if has_initial_delay and bits.number(1):
            bits.number(4)


def _skip_frame_size(bits: _Bits, *, is_reduced: bool) -> None:
    width_bits, height_bits = bits.number(4) + 1, bits.number(4) + 1
    bits.number(width_bits + height_bits)
    if not is_reduced and bits.number(1):
        bits.number(4 + 3)
    bits.number(3)


def _skip_inter_tools(bits: _Bits) -> None:
    bits.number(4)
    has_order_hint = bits.number(1)
    if has_order_hint:
        bits.number(2)
    screen_content = _SELECT if bits.number(1) else bits.number(1)
    if screen_content and not bits.number(1):
        bits.number(1)
    if has_order_hint:
        bits.number(3)


def _color_config(bits: _Bits, profile: int) -> SequenceHeader:
    monochrome = _is_monochrome(bits, profile)
    primaries = transfer = matrix = color_space.UNSPECIFIED
    if bits.number(1):
        primaries, transfer, matrix = bits.number(8), bits.number(8), bits.number(8)
    is_srgb = not monochrome and (primaries, transfer, matrix) == _SRGB_CODE_POINTS
    return SequenceHeader(primaries, transfer, is_srgb or bool(bits.number(1)))


def _is_monochrome(bits: _Bits, profile: int) -> bool:
    high_bit_depth = bits.number(1)
    if profile == _PROFESSIONAL_PROFILE and high_bit_depth:
        bits.number(1)
    return profile != _HIGH_PROFILE and bool(bits.number(1))


class _Bits:
    """Reads numbers of any number of bits, the highest bit first; beyond the end they are 0."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content, "big"), 8 * len(content)
        self._size = self._left

    @property
    def position(self) -> int:
        """How many bits have been read."""
        return self._size - self._left

    def number(self, size: int) -> int:
        self._left -= size
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << size) - 1)

    def skip_uvlc(self) -> None:
        """Skip a number of variable length (§4.10.3)."""
        zeros = 0
        while self._left > 0 and not self.number(1):
            zeros += 1
        if zeros < _MAX_UVLC_ZEROS:
            self.number(zeros)
