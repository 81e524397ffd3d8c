"""Makes `addresses.json`, the signed URLs on which every implementation must agree.

`python tests/vectors/make.py` writes the file next to this one. It implements the grammar of URLs and their signatures a second time,
with nothing but the standard library, so that an error in the service's implementation does not become part of the vectors.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("addresses.json")

NEWEST, OLDER, OLDEST = (hashlib.sha256(name).digest() for name in (b"newest", b"older", b"oldest"))
SHORT = bytes(range(16))

EXTENSIONS = ("avif", "webp", "jpg", "png", "auto")
LATER_TRANSFORMS = (
    "frame=2,crop=10p:12.5p:50p:60p,trim=10,rotate=90,flip=horizontal,width=640,enlarge=true",
    "width=640,brightness=1.2,contrast=0.9,gamma=2.2,saturation=1.5,blur=0.5,sharpen=1",
    "grayscale=true,overlay=k5x7q2abcdefghijklmnopqrstuvwxyz:southeast:0.2:0.7:-12:12,round=max,pad=5:6:7:8,background=ff8800",
    "profile=p3,metadata=copyright,quality=auto,max_bytes=20000,effort=6,progressive=true",
)
TRANSFORMS = (
    "full",
    "width=1",
    "width=640",
    "height=480",
    "width=640,height=480",
    "width=640,height=480,fit=outside",
    "width=640,height=480,fit=cover",
    "width=640,height=480,fit=cover,gravity=northeast",
    "width=640,height=480,fit=cover,gravity=attention",
    "width=640,height=480,fit=cover,gravity=focal:0.3:0.6",
    "width=640,height=480,fit=cover,gravity=focal:0.0001:1",
    "width=640,height=480,fit=contain,gravity=south",
    "width=640,height=480,fit=fill,quality=42",
    "width=8192,height=8192,fit=cover,gravity=focal:0.1234:0.9876,quality=100",
    "quality=1",
)


def base32(data: bytes) -> str:
    """Return RFC 4648 base32 in lower case without padding."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def digest(original: bytes) -> str:
    """Return the name of an original: the first 160 bits of its SHA-256."""
    return base32(hashlib.sha256(original).digest()[:20])


def accepted_url(keys: list[bytes], version: int, original: bytes, transform: str, extension: str, *, signed_by: int = 0) -> dict[str, Any]:
    """Return one URL that is accepted with `keys` (newest first), signed with the key at `signed_by`."""
    name = digest(original)
    signing_payload = f"/i/v{version}/{name}/{transform}.{extension}"
    signature = base32(hmac.new(keys[signed_by], signing_payload.encode("ascii"), hashlib.sha256).digest()[:16])
    return {
        "keys": [key.hex() for key in keys],
        "signed_by": signed_by,
        "version": version,
        "digest": name,
        "transform": transform,
        "extension": extension,
        "signed_text": signing_payload,
        "signature": signature,
        "path": f"/i/v{version}/{name}/{transform}/{signature}.{extension}",
    }


def vectors() -> dict[str, list[dict[str, Any]]]:
    """Return the vectors: digests of originals, URLs that are accepted, and paths that are refused."""
    photo, other = b"a photo", b"another photo"
    good = [accepted_url([NEWEST], 1, photo, transform, EXTENSIONS[index % 5]) for index, transform in enumerate(TRANSFORMS)]
    good += [accepted_url([NEWEST], 1, other, transform, extension) for transform in TRANSFORMS[2:4] for extension in EXTENSIONS]
    good += [accepted_url([SHORT], version, photo, "width=640", "webp") for version in (1, 2, 10, 999_999)]
    good += [accepted_url([NEWEST, OLDER, OLDEST], 1, photo, "width=640", "avif", signed_by=by) for by in range(3)]
    good += [accepted_url([OLDER, NEWEST], 1, photo, "full", "jpg", signed_by=by) for by in range(2)]
    good += [accepted_url([NEWEST], 2, photo, transform, "gif") for transform in (*TRANSFORMS[:4], *LATER_TRANSFORMS)]
    good += [accepted_url([NEWEST], 3, photo, transform, "jxl") for transform in (*TRANSFORMS[:4], *LATER_TRANSFORMS)]
    one = good[6]
    start, signature = one["path"].rpartition("/")[0], one["signature"]
    bad = {
        "another extension": f"{start}/{signature}.avif",
        "another transform": one["path"].replace("width=640", "width=641"),
        "another order of keys": one["path"].replace("width=640,height=480", "height=480,width=640"),
        "another digest": one["path"].replace(digest(photo), digest(other)),
        "another version": one["path"].replace("/v1/", "/v2/"),
        "another signature": one["path"].replace(signature, good[1]["signature"]),
        "a key that is not configured": accepted_url([OLDEST], 1, photo, "width=640", "webp")["path"],
        "no signature": f"{start}/-.webp",
    }
    malformed = {
        "capitals in the signature": f"{start}/{signature.upper()}.webp",
        "a percent-encoding": one["path"].replace("=", "%3D"),
        "a doubled slash": one["path"].replace("/v1/", "/v1//"),
        "a slash at the end": one["path"] + "/",
        "a version with a zero in front": one["path"].replace("/v1/", "/v01/"),
        "a signature that is cut short": f"{start}/{signature[:-1]}.webp",
        "padding": f"{start}/{signature}======.webp",
        "a query string": one["path"] + "?width=640",
        "an extension that no rendition has": f"{start}/{signature}.bmp",
        "an empty transform": one["path"].replace(one["transform"], ""),
    }
    refused = [{"why": why, "keys": [NEWEST.hex()], "path": path, "error": "bad-signature"} for why, path in bad.items()]
    refused += [{"why": why, "keys": [NEWEST.hex()], "path": path, "error": "bad-address"} for why, path in malformed.items()]
    digests = [{"original": original.hex(), "digest": digest(original)} for original in (b"", photo, other, bytes(range(256)))]
    return {"digests": digests, "accepted": good, "refused": refused}


def text() -> str:
    """Return the file's content."""
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "ascii")
