"""Failures that several steps of a job report to the server."""

from __future__ import annotations

from service.rendering.protocol import Failure


def broken_image(image_format: str, cause: str) -> Failure:
    """Return the failure of an image that has the header of its format and does not decode.

    cause: the decoder's message, for the log only.
    """
    name = image_format.upper()
    return Failure(
        "broken",
        f"This {name} image is broken or incomplete.",
        expected=f"a {name} image that decodes to its end",
        received="one that ends early or holds errors",
        remedy="Check the file, export it again, and send it whole.",
        cause=cause,
    )


def unsupported_animation(image_format: str) -> Failure:
    """Return the failure of an animation in a format that is accepted for still images only."""
    name = image_format.upper()
    return Failure(
        "unsupported",
        f"This {name} image is an animation; only still {name} images are accepted.",
        expected="an animation as GIF or WebP, or a still image",
        received=f"an animated {name}",
        remedy="Export the animation as WebP or GIF, or export its first frame, and send that.",
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
