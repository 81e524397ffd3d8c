"""libvips' error buffer: emptied between jobs, and decoded even if it is not valid UTF-8.

libvips appends its messages to one buffer per process; pyvips reads and clears it when it raises `pyvips.Error`. Hostile files cause two
problems. A message may quote bytes of the file that are not UTF-8: pyvips then raises `UnicodeDecodeError` before it clears the buffer, and
so does every later failure in the process (https://github.com/libvips/pyvips/issues/80). And a message that nobody read stays in the buffer
and becomes part of the next failure, which would then be classified by both.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pyvips

# The pyvips function that decodes every C string of libvips. Each module of pyvips imports it by name.
_DECODER = "_to_string"


def decode_leniently() -> None:
    """Make pyvips replace invalid UTF-8 in the strings of libvips (messages, names and values of metadata), in the whole process."""
    strict = getattr(pyvips.error, _DECODER)
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and module.__name__.partition(".")[0] == "pyvips" and getattr(module, _DECODER, None) is strict:
            setattr(module, _DECODER, _decode)


# Messages that libvips would have dropped from its buffer.
_kept: list[str] = []


def clear() -> None:
    """Empty the error buffer, so that its messages are not attributed to the next failure."""
    _kept.clear()
    pyvips.vips_lib.vips_error_clear()


def keep() -> None:
    """Keep the messages that are in the error buffer for `pending`.

    To be called after an operation that may read pixels when it is built, because libvips empties the buffer for the next operation.
    """
    if message := _decode(pyvips.vips_lib.vips_error_buffer()):
        _kept.append(message)


def pending() -> str:
    """Return the messages that were kept, and those in the error buffer, and leave them there: warnings of a decoder that has succeeded."""
    return "".join([*_kept, _decode(pyvips.vips_lib.vips_error_buffer())])


def _decode(pointer: Any) -> str:
    if pointer == pyvips.ffi.NULL:
        return "NULL"
    text = pyvips.ffi.string(pointer)
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
