"""libvips' error buffer: emptied between jobs, and decoded whatever bytes are in it.

libvips appends its messages to one buffer per process, and pyvips reads and clears that buffer when it raises `pyvips.Error`. Two things
go wrong with files of strangers. A message may quote bytes of the file that are not UTF-8: pyvips then raises `UnicodeDecodeError` before
it clears the buffer, so that every later failure of the process raises it too (https://github.com/libvips/pyvips/issues/80). And a message
that nobody read stands in the buffer until the next failure, which would be classified by the words of both.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pyvips

# The function of pyvips that turns every C string of libvips into text, `Error.__init__`'s included; each of its modules imports it.
_DECODER = "_to_string"


def decode_leniently() -> None:
    """Have pyvips replace what is not UTF-8 in the strings of libvips (messages, names and values of metadata), for the whole process."""
    strict = getattr(pyvips.error, _DECODER)
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and module.__name__.partition(".")[0] == "pyvips" and getattr(module, _DECODER, None) is strict:
            setattr(module, _DECODER, _decoded)


def clear() -> None:
    """Empty the error buffer: what is in it belongs to a failure that has been dealt with."""
    pyvips.vips_lib.vips_error_clear()


def _decoded(pointer: Any) -> str:
    if pointer == pyvips.ffi.NULL:
        return "NULL"
    text = pyvips.ffi.string(pointer)
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
