"""Makes `addresses.json`, the URLs on which every implementation must agree.

`python tests/vectors/make.py` writes the file next to this one. It implements the grammar of URLs and their signatures a second time,
with nothing but the standard library, so that an error in the service's implementation does not become part of the vectors.

A signature covers the path without the signature and the slash before it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("addresses.json")

NEWEST, OLDER, OLDEST = (hashlib.sha256(name).digest() for name in (b"newest", b"older", b"oldest"))
SHORT = bytes(range(16))
# The vectors refer to keys by their places here.
KEYS = (NEWEST, OLDER, OLDEST, SHORT)

# The characters that ECMA-262's `encodeURIComponent` leaves as they are.
UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()"

# The default ladder, and the formats in which it is open for every image.
WIDTHS = (320, 640, 960, 1280, 1920, 2560)
OPEN_EXTENSIONS = ("jxl", "avif", "webp", "jpg", "auto")

ALL_EXTENSIONS = ("jxl", "avif", "webp", "jpg", "png", "gif", "auto")
EXTENSIONS = ("avif", "webp", "jpg", "png", "auto")
LATER_TRANSFORMS = (
    "frame=2,crop=10p:12.5p:50p:60p,trim=10,rotate=90,flip=horizontal,width=640,enlarge=true",
    "width=640,brightness=1.2,contrast=0.9,gamma=2.2,saturation=1.5,blur=0.5,sharpen=1",
    "grayscale=true,overlay=k5x7q2abcdefghijklmnopqrstuvwxyz:southeast:0.2:0.7:-12:12,round=max,pad=5:6:7:8,background=ff8800",
    "width=640,ratio=191:100,gravity=north",
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


# Names, or parts of them, in many scripts, all in NFC.
WORDS = (
    *("panda", "IMG_1234", "A", "0", "-", "_", "--", "a-b_c", "2024-05-01_sunset", "con", "photo-of-a-boat"),
    *("Gr\u00f6\u00dfe", "caf\u00e9", "\u00c5ngstr\u00f6m", "\u0130stanbul", "\u0111\u01b0\u1eddng", "\u0142\u00f3d\u017a"),
    *("\u043c\u043e\u0441\u043a\u0432\u0430", "\u0439\u043e\u0433\u0443\u0440\u0442", "\u0391\u03b8\u03ae\u03bd\u03b1"),
    *("\u05e9\u05dc\u05d5\u05dd", "\u0633\u0644\u0627\u0645", "\u0645\u062f\u0631\u0633\u064e\u0629", "\u06f1\u06f2\u06f3"),
    *("\u0939\u093f\u0928\u094d\u0926\u0940", "\u09ac\u09be\u0982\u09b2\u09be", "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd"),
    *("\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22", "\u1781\u17d2\u1798\u17c2\u179a", "\u12a0\u121b\u122d\u129b"),
    *("\u5199\u771f", "\u6f22\u5b57\u304b\u306a", "\u30ab\u30e1\u30e9", "\u30ac\u30e9\u30b9", "\uc0ac\uc9c4", "\u10e5\u10d0\u10e0"),
    *("x\u0304y", "q\u0323\u0307", "\U0001d41a\U0001d41b", "\U00020000\U0002a6d6", "\U00010330\U00010331", "x\u0332\u0301y"),
)

SOURCES = ("shop", "a", "cms-2", "old-photos-of-the-museum-1900-20")
PATHS = (
    *(f"{word}.jpg" for word in WORDS),
    *(f"2026/{word}/{number} {word}.jpeg" for number, word in enumerate(WORDS)),
    *("a.jpg", "a", ".hidden", "a..b/...c", "a.jpg.", 'a b+c&d=e;f,g:h@i$j/#k[l]{m}|n^o`p"q<r>s.png', "!*'()~-_./a", "100%.jpg", "%41.jpg"),
    *("a?w=1&h=2", "folder/a.jpg?u=https%3A%2F%2Fexample.com%2Fb.jpg", "a.php?path=/b/c", "a?", "a??", "Gro\u0308\u00dfe.jpg"),
    *("\U0001f600/\u2764\ufe0f.gif", "\u202egpj.a", "a\u00a0b", "width=640/-.webp", "full/abcdefghijklmnopqrstuvwxyz.jpg", "i/v3/from"),
    *("/".join(["folder"] * 100) + "/a.jpg", "a" * 3_072, "\u8c61" * 341),
)

# Paths that a page could write in place of the one after them.
OTHER_SPELLINGS = {
    "Gr%c3%b6%c3%9fe/1.jpg": "Gr%C3%B6%C3%9Fe/1.jpg",
    "%61%2D1.jpg": "a-1.jpg",
    "a+b=c,d@e:f;g&h$i.jpg": "a%2Bb%3Dc%2Cd%40e%3Af%3Bg%26h%24i.jpg",
    "%28a%29%2A%21%27%7E%5F.jpg": "(a)*!'~_.jpg",
    "a.jpg%3fv=1": "a.jpg%3Fv%3D1",
}
# Paths in a source that could lead out of it, or that no URL has.
NOT_PATHS = (
    *("", "..", "../a", "a/../b", "a/..", "a/.", "./a", "a//b", "/a", "a/", "%2e%2e/a", ".%2E/a", "%252e%252e/a", "%25252e./a", "..;x/a"),
    *(
        "a%2Fb",
        "a%2fb",
        "a%252Fb",
        "a%5Cb",
        "a\\b",
        "a%255cb",
        "..%2fa",
        "%2e%2e%2fa",
        "%c0%ae%c0%ae/a",
        "%c0%afa",
        "a%00",
        "a%2500",
        "a%0Ab",
    ),
    *("a%7F", "%", "a%4", "a%zz", "%FF", "%ED%A0%80", "%E0%80%AF", "%F4%90%80%80", "a" * 3_073, "%61" * 1_025, "a%3Fb%0A"),
)

# Last parts of paths that are no names, as they stand in a path.
NOT_NAMES = (
    *("", ".", "..", "%2E%2E", "%2e%2e", "a.b", "a%2Eb", "a%2Fb", "a%2f..%2f..%2fb", "a%5Cb", "a\\b", "..%2Fboat", "a/b"),
    *("a%00", "%00", "a%0D%0Ab", "a%7F", "a%20b", "a b", "a+b", "a~b", "a!b", "a*b", "a(b)", "a'b", "a%22b", "a;b", "a%3Bb", "a,b"),
    *("%", "a%", "a%4", "a%zz", "a%u0041", "%25", "a%2561", "%C3", "%FF", "%C0%AF", "%E0%80%AF", "a%C3b", "%F4%90%80%80"),
    *("%ED%A0%80", "%ED%B0%80", "%ED%A0%BD%ED%B8%80", "%F0%9F%98%80", "%E2%80%AEgpj", "%E2%80%8F", "%E2%81%A6a", "%E2%80%8D", "%EF%BB%BF"),
    *("%CC%81", "%CC%81a", "-%CC%81", "_%CC%81", "%EF%B8%8F", "%C2%A0", "%C2%AD", "%C2%BD", "%E2%84%A2", "%E2%82%AC", "%EF%BF%BD"),
    *("%EE%80%80", "%F3%B0%80%80", "%E2%80%A8", "%EF%BC%8F", "%EF%BC%8E", "%E2%88%95", "%D9%AB"),
    *("a" * 81, "%C3%B6" * 81, "%F0%9D%90%9A" * 61, "a" * 2_000, "%61" * 81, "o%CC%88" * 81, "a" + "%CC%81" * 400),
)


def base32(data: bytes) -> str:
    """Return RFC 4648 base32 in lower case without padding."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def digest(original: bytes) -> str:
    """Return the name of an original: the first 160 bits of its SHA-256."""
    return base32(hashlib.sha256(original).digest()[:20])


def encode_uri_component(text: str) -> str:
    """Return what ECMA-262's `encodeURIComponent` gives."""
    return "".join(chr(byte) if chr(byte) in UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def accepted_url(
    keys: list[bytes], version: int, original: bytes, transform: str, extension: str, *, name: str = "", signed_by: int | None = 0
) -> dict[str, Any]:
    """Return one URL that is accepted with `keys` (newest first), signed with the key at `signed_by`, or unsigned without one."""
    start = f"/i/v{version}/{digest(original)}/{transform}"
    end = f"/{encode_uri_component(name)}.{extension}" if name else f".{extension}"
    signature = "-"
    if signed_by is not None:
        signature = base32(hmac.new(keys[signed_by], (start + end).encode("ascii"), hashlib.sha256).digest()[:16])
    return {
        "keys": [KEYS.index(key) for key in keys],
        "signed_by": signed_by,
        "version": version,
        "digest": digest(original),
        "transform": transform,
        "name": name,
        "extension": extension,
        "signature": signature,
        "path": f"{start}/{signature}{end}",
    }


def signed_urls() -> list[dict[str, Any]]:
    """Return URLs of every form: transforms, versions, extensions, keys and names."""
    photo, other = b"a photo", b"another photo"
    good = [accepted_url([NEWEST], 1, photo, transform, EXTENSIONS[index % 5]) for index, transform in enumerate(TRANSFORMS)]
    good += [accepted_url([NEWEST], 1, other, transform, extension) for transform in TRANSFORMS[2:4] for extension in EXTENSIONS]
    good += [accepted_url([SHORT], version, photo, "width=640", "webp") for version in (1, 2, 10, 999_999)]
    good += [accepted_url([NEWEST, OLDER, OLDEST], 1, photo, "width=640", "avif", signed_by=by) for by in range(3)]
    good += [accepted_url([OLDER, NEWEST], 1, photo, "full", "jpg", signed_by=by) for by in range(2)]
    good += [accepted_url([NEWEST], 2, photo, transform, "gif") for transform in (*TRANSFORMS[:4], *LATER_TRANSFORMS)]
    good += [accepted_url([NEWEST], 3, photo, transform, "jxl") for transform in (*TRANSFORMS[:4], *LATER_TRANSFORMS)]
    transforms = itertools.cycle((*TRANSFORMS, *LATER_TRANSFORMS))
    extensions = itertools.cycle(ALL_EXTENSIONS)
    for by, name in enumerate(names() * 4):
        good.append(accepted_url([OLDER, NEWEST], 1 + by % 3, other, next(transforms), next(extensions), name=name, signed_by=by % 2))
    return good


def unsigned_urls() -> list[dict[str, Any]]:
    """Return URLs of the open ladder, with the default widths and without variants."""
    photo = b"a photo"
    good = [accepted_url([NEWEST], 3, photo, f"width={width}", end, signed_by=None) for width in WIDTHS for end in OPEN_EXTENSIONS]
    widths, extensions = itertools.cycle(WIDTHS), itertools.cycle(OPEN_EXTENSIONS)
    good += [accepted_url([NEWEST], 3, photo, f"width={next(widths)}", next(extensions), name=name, signed_by=None) for name in names() * 3]
    return good


def source_urls() -> list[dict[str, Any]]:
    """Return signed and unsigned URLs of images in a source."""
    good, transforms, extensions = [], itertools.cycle((*TRANSFORMS, *LATER_TRANSFORMS)), itertools.cycle(ALL_EXTENSIONS)
    widths, open_extensions = itertools.cycle(WIDTHS), itertools.cycle(OPEN_EXTENSIONS)
    for by, path in enumerate(PATHS):
        source = SOURCES[by % len(SOURCES)]
        good.append(accepted_source_url([OLDER, NEWEST], source, path, next(transforms), next(extensions), signed_by=by % 2))
        good.append(accepted_source_url([NEWEST], source, path, f"width={next(widths)}", next(open_extensions), signed_by=None))
    return good


def accepted_source_url(
    keys: list[bytes], source: str, path: str, transform: str, extension: str, *, signed_by: int | None
) -> dict[str, Any]:
    """Return one URL of an image at a path in a source; the other parameters are those of `accepted_url`."""
    start = f"/from/{source}/{'/'.join(map(encode_uri_component, path.split('/')))}/{transform}"
    signature = "-"
    if signed_by is not None:
        signature = base32(hmac.new(keys[signed_by], f"{start}.{extension}".encode("ascii"), hashlib.sha256).digest()[:16])
    return {
        "keys": [KEYS.index(key) for key in keys],
        "signed_by": signed_by,
        "source": source,
        "object_path": path,
        "transform": transform,
        "extension": extension,
        "signature": signature,
        "path": f"{start}/{signature}.{extension}",
    }


def names() -> list[str]:
    """Return names of every script and every length."""
    return [
        *WORDS,
        *(f"{first}-{second}" for first, second in zip(WORDS, [*WORDS[7:], *WORDS[:7]], strict=True)),
        *(f"{word}_{number}" for number, word in enumerate(WORDS)),
        *(("abcdefghijklmnopqrstuvwxyz0123456789-_" * 3)[:length] for length in (40, 79, 80)),
        *(("Größe-" * 14)[:length] for length in range(1, 81, 7)),
        *("象" * length for length in range(10, 81, 10)),
        *("\N{MATHEMATICAL BOLD SMALL A}" * length for length in (1, 20, 60)),
    ]


def vectors() -> dict[str, list[Any]]:
    """Return the vectors: keys, digests of originals, URLs that are accepted, other spellings of such URLs, and paths that are refused."""
    photo, other = b"a photo", b"another photo"
    good, in_sources = [*signed_urls(), *unsigned_urls()], source_urls()
    one = good[6]
    start, signature = one["path"].rpartition("/")[0], one["signature"]
    named = accepted_url([NEWEST], 3, photo, "width=640", "webp", name="Größe-1")
    named_start, spelled = named["path"].rpartition("/")[0], "Gr%C3%B6%C3%9Fe-1"
    bad = {
        "another extension": f"{start}/{signature}.avif",
        "another transform": one["path"].replace("width=640", "width=641"),
        "another order of keys": one["path"].replace("width=640,height=480", "height=480,width=640"),
        "another digest": one["path"].replace(digest(photo), digest(other)),
        "another version": one["path"].replace("/v1/", "/v2/"),
        "another signature": one["path"].replace(signature, good[1]["signature"]),
        "a key that is not configured": accepted_url([OLDEST], 1, photo, "width=640", "webp")["path"],
        "no signature": f"{start}/-.webp",
        "a name that is not signed": f"{start}/{signature}/boat.webp",
        "another name": f"{named_start}/Gr%C3%B6%C3%9Fe-2.webp",
        "another name in another case": f"{named_start}/gr%C3%B6%C3%9Fe-1.webp",
        "no name where one is signed": f"{named_start}.webp",
        "a signature in place of the name": f"{named_start}/{named['signature']}.webp",
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
        **{f"the name {name}": f"{named_start}/{name}.webp" for name in NOT_NAMES},
    }
    respelled = {
        "lower-case hexadecimal digits": "Gr%c3%b6%c3%9fe-1",
        "an encoded letter of ASCII": "%47r%C3%B6%C3%9Fe-1",
        "an encoded hyphen": "Gr%C3%B6%C3%9Fe%2D1",
        "NFD": "Gro%CC%88%C3%9Fe-1",
    }
    source_start, source_end = "/from/shop/", f"/width=640/{'a' * 26}.webp"
    malformed |= {f"the path {path}": f"{source_start}{path}{source_end}" for path in NOT_PATHS}
    malformed |= {f"the source {name}": f"/from/{name}/a.jpg{source_end}" for name in ("", "Shop", "1a", "a_b", "a" * 33, "%61", "..")}
    refused = [{"why": why, "keys": [KEYS.index(NEWEST)], "path": path, "error": "bad-signature"} for why, path in bad.items()]
    refused += [{"why": why, "keys": [KEYS.index(NEWEST)], "path": path, "error": "bad-address"} for why, path in malformed.items()]
    digests = [{"original": original.hex(), "digest": digest(original)} for original in (b"", photo, other, bytes(range(256)))]
    redirected = [
        {"why": why, "keys": [KEYS.index(NEWEST)], "path": f"{named_start}/{name}.webp", "location": f"{named_start}/{spelled}.webp"}
        for why, name in respelled.items()
    ]
    redirected += [
        {
            "why": f"the path {path}",
            "keys": [],
            "path": f"{source_start}{path}{source_end}",
            "location": f"{source_start}{spelled}{source_end}",
        }
        for path, spelled in OTHER_SPELLINGS.items()
    ]
    return {
        "keys": [key.hex() for key in KEYS],
        "digests": digests,
        "accepted": good,
        "in_sources": in_sources,
        "redirected": redirected,
        "refused": refused,
    }


def text() -> str:
    """Return the file's content: JSON with one vector a line."""
    lists = [f'"{name}": [\n' + ",\n".join(map(json.dumps, found)) + "\n]" for name, found in vectors().items()]
    return "{\n" + ",\n".join(lists) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text(), "ascii")
