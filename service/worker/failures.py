"""Failures that several steps of a job report to the server."""

from __future__ import annotations

import re

from service.rendering.protocol import Failure

# Beginnings of libheif's messages, after which it names the reason: a limit that it sets so that a file cannot claim resources without end,
# and a feature of the container or codec that it lacks. A picture that is larger than its container declares exceeds a limit as well.
_LIMIT, _UNSUPPORTED, _MISMATCH = "security limit exceeded:", "unsupported feature:", "exceeds the maximum image size"
_MAX_REASON_CHARACTERS = 200


def undecodable(image_format: str, cause: str) -> Failure:
    """Return the failure of an image that a decoder refused for another reason than memory.

    cause: the decoder's message.
    """
    name = image_format.upper()
    if _MISMATCH not in cause and (limit := _reason(cause, _LIMIT)):
        return Failure(
            "too-complex",
            f"This {name} image has more or larger parts than its decoder accepts.",
            received=limit,
            remedy="Export the image again as one picture without tiles, and send that.",
            cause=cause,
        )
    if feature := _reason(cause, _UNSUPPORTED):
        return Failure(
            "unsupported",
            f"This {name} image uses a feature that its decoder lacks.",
            received=feature,
            remedy="Export the image again with default options, or as JPEG or PNG, and send that.",
            cause=cause,
        )
    return broken_image(image_format, cause)


def _reason(cause: str, beginning: str) -> str:
    """Return the line of a message after `beginning`, without numbers of errors, empty if the message lacks it."""
    start = cause.lower().find(beginning)
    if start < 0:
        return ""
    line = re.split(r"\n| \(\d+\.\d+\)", cause[start + len(beginning) :].strip(), maxsplit=1)[0]
    return "".join(character for character in line if character.isprintable())[:_MAX_REASON_CHARACTERS].strip()


def broken_image(image_format: str, cause: str) -> Failure:
    """Return the failure of an image that has the header of its format and does not decode.

    cause: the decoder's message, for the log only.
    """
    name = image_format.upper()
    return Failure(
        "broken",
        f"This {name} image is broken or incomplete.",
        expected="an image that decodes to its end",
        received="one that ends early or holds errors",
        remedy="Check the file, export it again, and send it whole.",
        cause=cause,
    )


def broken_animation(image_format: str, reason: str) -> Failure:
    """Return the failure of an animation whose frames cannot be found.

    reason: a clause about the file or about a part of it, for the client.
    """
    name = image_format.upper()
    return Failure(
        "broken",
        f"This animated {name} image is broken: {reason}.",
        expected="an animation that decodes to its end",
        received=reason,
        remedy="Check the file, export it again, and send it whole.",
    )


def out_of_memory(cause: str) -> Failure:
    """Return the failure of a render that would exceed its address space. `cause` is for the log only."""
    return Failure(
        "too-costly",
        "This image needs more memory to render than a render may have.",
        remedy="Ask for a smaller rendition, send a smaller image or one that is not progressive or interlaced, "
        "or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
        cause=cause,
        short_of_memory=True,
    )
