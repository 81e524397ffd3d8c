"""Sources, redirects, images and requests that try to make a server connect to an address that is not public."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

from service.urls.signing import Signer
from service.urls.source_url import SourceUrl
from tests.attacks.canary_network import BUCKET_ADDRESS, HOST_ADDRESS, HOST_ADDRESS_IPV6, Records
from tests.support.source_server import http_response

GOOD_HOST = "pictures.example"
# A bucket of a provider that redirects.
BUCKET_HOST = "bucket.example"
BUCKET = "pictures"

# An address of every range that `service.sources.public_addresses` refuses.
FORBIDDEN_IPV4 = (
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.254", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.0.0.53", "127.255.255.254"),
    *("169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.254", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.31.196.1"),
    *("192.52.193.1", "192.88.99.1", "192.168.0.1", "192.168.255.254", "192.175.48.1", "198.18.0.1", "198.19.255.254", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
)
FORBIDDEN_IPV6 = (
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *(
        "64:ff9b:1::a00:1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::",
        "2620:4f:8000::1",
        "3fff::1",
        "5f00::1",
    ),
    *("fc00::1", "fd00:ec2::254", "fdaa::3", "fe80::1", "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "ff0e::1"),
)

# Other spellings of 127.0.0.1, 169.254.169.254 and [::1], which inet_aton(3) and getaddrinfo(3) understand.
_SPELLINGS = (
    *("127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0177.0.0.1", "017700000001", "0177.1", "0", "0x0"),
    *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.16689662", "[0:0:0:0:0:0:0:1]", "[::ffff:7f00:1]"),
    *("[0:0:0:0:0:ffff:a9fe:a9fe]", "localhost", "ip6-localhost"),
)

# Hosts that no source may have: in URLs and redirects only.
_UNLISTED = (
    *("127.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[fe80::1%25lo]", "[::1%25lo]", "2130706433", "localhost."),
    *("127.0.0.1.", "169.254.169.254.", f"{GOOD_HOST}.", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "\u24db\u24de\u24d2alhost"),
    *("127\u30020\u30020\u30021", "127\uff0e0\uff0e0\uff0e1", "%31%32%37.0.0.1", "127%2e0%2e0%2e1", "%6cocalhost", "127.0.0.1%00"),
    *(f"user@{GOOD_HOST}", "user:password@127.0.0.1", f"{GOOD_HOST}@127.0.0.1", f"127.0.0.1@{GOOD_HOST}", f"{GOOD_HOST}:80@127.0.0.1:80"),
    *(
        f"127.0.0.1#.{GOOD_HOST}",
        f"127.0.0.1#@{GOOD_HOST}",
        f"127.0.0.1%23@{GOOD_HOST}",
        f"127.0.0.1?.{GOOD_HOST}",
        f"127.0.0.1\\@{GOOD_HOST}",
    ),
    *(f"{GOOD_HOST}\\@127.0.0.1", f"127.0.0.1;.{GOOD_HOST}", f"127.0.0.1,{GOOD_HOST}", f"127.0.0.1&{GOOD_HOST}", f"{GOOD_HOST}.127.0.0.1"),
    *("127.0.0.1:80:80", "127.0.0.1:6379", f"{GOOD_HOST}:6379", f"{GOOD_HOST}:0", f"{GOOD_HOST}:65536", f"{GOOD_HOST}:-1", "127.0.0.1:080"),
    *("127.0.0.1\t", "127.0.\t0.1", "127.0.0.1%0d%0aHost:x", "[::1", "::1", "[]", "[v1.127.0.0.1]", "*", "..", "-", "a" * 300),
)
_SCHEMES = (
    *("https://127.0.0.1/{}", "file:///etc/passwd", "file://127.0.0.1/{}", "ftp://127.0.0.1/{}", "gopher://127.0.0.1:6379/_INFO%0d%0a"),
    *("dict://127.0.0.1:6379/info", "ldap://127.0.0.1/{}", "ws://127.0.0.1/{}", "tftp://127.0.0.1/{}", "jar:http://127.0.0.1!/{}"),
    *("unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/{}", "data:image/png;base64,AAAA", "javascript:alert(1)"),
    *(
        "HTTP://127.0.0.1/{}",
        "hTTps://127.0.0.1/{}",
        "s3://pictures/{}",
        "gs://pictures/{}",
        "blob:http://127.0.0.1/{}",
        "view-source:http://127.0.0.1",
    ),
    *(
        "//127.0.0.1/{}",
        "///127.0.0.1/{}",
        "/\\127.0.0.1/{}",
        "\\\\127.0.0.1\\{}",
        "http:/127.0.0.1/{}",
        "http:///127.0.0.1/{}",
    ),
    *(
        "http:\\\\127.0.0.1\\{}",
        "http:/\\127.0.0.1/{}",
        "http://http://127.0.0.1/{}",
        " http://127.0.0.1/{}",
        "\thttp://127.0.0.1/{}",
    ),
    *(f"http://{GOOD_HOST}/other/{{}}", f"http://{GOOD_HOST}/pictures/../{{}}", f"https://{GOOD_HOST}/pictures/{{}}", "#{}", ""),
)
_TARGETS = (*(f"http://{host}/{{}}" for host in _UNLISTED), *_SCHEMES)

# Relative references (RFC 3986 §4.2), some of which look like something else: they lead to an object of the same host.
_RELATIVE = ("http:127.0.0.1/{}", "://127.0.0.1/{}", "?{}", "@127.0.0.1", ":80@127.0.0.1", "127.0.0.1:80", "localhost")

# Responses that are no redirects, but name an address in some other way. 200 is the picture of the good host.
_ODD_RESPONSES = (
    *(
        (200, field)
        for field in ("Refresh: 0; url=http://127.0.0.1/", "Location: http://127.0.0.1/", "Content-Location: http://127.0.0.1/")
    ),
    *((200, field) for field in ("Link: <http://127.0.0.1/>; rel=preload", 'Alt-Svc: h2="127.0.0.1:443"', "X-Accel-Redirect: /internal")),
    *(
        (200, field)
        for field in ("SourceMap: http://127.0.0.1/", 'Report-To: {"endpoints":[{"url":"http://127.0.0.1/"}]}', "X-Sendfile: /etc/passwd")
    ),
    *((status, "Location: http://127.0.0.1/") for status in (201, 202, 204, 206, 300, 304, 305, 306, 309, 399, 401, 404, 407, 503)),
    *((status, "Upgrade: h2c") for status in (101, 426)),
    *((401, field) for field in ('WWW-Authenticate: Bearer realm="http://127.0.0.1/"', "WWW-Authenticate: Negotiate")),
)

_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="40" height="30">'
    '{}<rect width="9" height="9"/></svg>'
)
_SVG_PARTS = (
    *('<image href="{}" width="9" height="9"/>', '<image xlink:href="{}" width="9" height="9"/>', '<use href="{}#a"/>'),
    *(
        '<style>@import "{}";</style>',
        "<style>rect {{ fill: url({}#a) }}</style>",
        '<style>@font-face {{ font-family: a; src: url("{}") }}</style>',
    ),
    *(
        '<rect width="9" height="9" fill="url({}#a)"/>',
        '<rect width="9" height="9" filter="url({}#a)"/>',
        '<filter id="a"><feImage href="{}"/></filter>',
    ),
    *(
        '<script href="{}"/>',
        '<foreignObject><iframe xmlns="http://www.w3.org/1999/xhtml" src="{}"/></foreignObject>',
        '<a href="{}"><rect/></a>',
    ),
    *('<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{}"/>', '<animate href="{}" attributeName="x"/>', '<mpath href="{}"/>'),
)
_SVG_STARTS = (
    '<!DOCTYPE svg SYSTEM "{}">',
    '<!DOCTYPE svg [<!ENTITY a SYSTEM "{}">]>',
    '<!DOCTYPE svg [<!ENTITY % a SYSTEM "{}"> %a;]>',
    '<?xml-stylesheet href="{}"?>',
)

# Paths below the good source that try to be another URL.
_PATHS = (
    *(
        "http:%2F%2F127.0.0.1%2Fa.jpg",
        "http://127.0.0.1/a.jpg",
        "%2F%2F127.0.0.1/a.jpg",
        "//127.0.0.1/a.jpg",
        "/127.0.0.1/a.jpg",
        "@127.0.0.1/a.jpg",
    ),
    *("%40127.0.0.1%2Fa.jpg", ":80@127.0.0.1/a.jpg", "..%2f..%2f@127.0.0.1/a.jpg", "%2e%2e/%2e%2e/a.jpg", "..;/a.jpg", "%252e%252e/a.jpg"),
    *("%5c%5c127.0.0.1%5ca.jpg", "a.jpg%0d%0aHost:%20127.0.0.1", "a.jpg%20HTTP/1.1%0d%0aHost:127.0.0.1%0d%0a", "%0d%0a/a.jpg", "%00/a.jpg"),
    *(
        "a.jpg%3Furl=http:%2F%2F127.0.0.1%2F",
        "a.jpg%23@127.0.0.1",
        "%E2%91%A0%E2%91%A1%E2%91%A6.0.0.1/a.jpg",
        ".127.0.0.1/a.jpg",
        ";@127.0.0.1/a.jpg",
    ),
)


class Case(NamedTuple):
    """A hostile request. is_refused: whether it must be an error; otherwise a picture without the hostile part is right too."""

    kind: str
    method: str
    path: str
    body: str = ""
    is_refused: bool = True


class Hostility:
    """The sources, names, replies and requests of one run.

    records: those of each name. replies: the whole responses of the good host and of the bucket, by host and path.
    """

    def __init__(self, signer: Signer, picture: bytes) -> None:
        """Prepare the sources.

        signer: signs URLs with a key of the server. picture: the body of responses that have an image.
        """
        self._signer = signer
        self._picture = picture
        self._numbers = itertools.count()
        self._hostile: dict[str, str] = {}
        self.records: dict[str, Records] = {
            GOOD_HOST: (HOST_ADDRESS, HOST_ADDRESS_IPV6),
            BUCKET_HOST: (BUCKET_ADDRESS,),
            "metadata.google.internal": ("169.254.169.254",),
            "metadata": ("169.254.169.254",),
        }
        self.replies: dict[str, bytes] = {}
        for number, address in enumerate((*FORBIDDEN_IPV4, *FORBIDDEN_IPV6)):
            self._add(f"n{number}", address)
            literal = f"[{address}]" if ":" in address else address
            self._hostile[f"l{number}"] = f"http://{literal}/"
        for number, spelling in enumerate(_SPELLINGS):
            self._hostile[f"s{number}"] = f"http://{spelling}/"
        for number, port in enumerate((443, 22, 2375, 6379, 8080, 9091)):
            self._hostile[f"p{number}"] = f"http://localhost:{port}/"
        for number, url in enumerate(
            (
                "https://localhost/",
                "https://169.254.169.254/",
                "https://n0.example/",
                "http://metadata/",
                "http://metadata.google.internal/",
            )
        ):
            self._hostile[f"t{number}"] = url
        self._add("mixed", HOST_ADDRESS, "10.0.0.1")
        self._add("mixed-first", "127.0.0.1", HOST_ADDRESS)
        self._add("mixed-six", HOST_ADDRESS, "::1")
        self._add("mixed-mapped", HOST_ADDRESS_IPV6, "::ffff:127.0.0.1")
        self._add("crowd", *(f"11.0.1.{last}" for last in range(12)), "192.168.0.1")
        self._add("alias-localhost", "localhost")
        self._add("alias-inside", "n2.example")
        self._add("alias-twice", "alias-inside.example")
        self._add("alias-metadata", "metadata.google.internal")
        self._add("nothing")
        self._hostile["missing"] = "http://does-not-exist.example/"
        self._rebinding = Rebinding()
        self.records["rebinding.example"] = self._rebinding

    @property
    def sources(self) -> str:
        """The value of `DARKROOM_SOURCES`."""
        all_sources = {"good": f"http://{GOOD_HOST}/pictures", "rebinding": "http://rebinding.example/", "bucket": f"s3://{BUCKET}"}
        return ";".join(f"{name}={url}" for name, url in (all_sources | self._hostile).items())

    def _add(self, name: str, *records: str) -> None:
        self.records[f"{name}.example"] = records
        self._hostile[name] = f"http://{name}.example/"

    def good_path(self) -> str:
        """Return the path of a picture of the good source that was never requested."""
        return self._get("good", f"good-{next(self._numbers)}.jpg")

    def rebinding_paths(self) -> list[str]:
        """Return paths at a host whose address is public at the first look-up, and not at the others."""
        return [self._get("rebinding", f"{number}.jpg") for number in range(5)]

    def cases(self) -> Iterator[Case]:
        """Yield all hostile requests, those of each kind one after the other."""
        yield from self._direct()
        yield from self._redirects()
        yield from self._responses()
        yield from self._images()
        yield from self._requests()
        yield from self._bucket()

    def _direct(self) -> Iterator[Case]:
        for name, url in self._hostile.items():
            yield Case("source", "GET", self._get(name, self._object()))
            yield Case("source, signed", "GET", self._get(name, self._object(), signed=True))
            yield Case("source, by path", "POST", "/v1/images", json.dumps({"source": name, "path": self._object()}))
            yield Case("source, by URL", "POST", "/v1/images", json.dumps({"url": url + self._object()}))

    def _redirects(self) -> Iterator[Case]:
        statuses = itertools.cycle((301, 302, 303, 307, 308))
        for url in self._hostile.values():
            yield self._redirect("redirect to a source", next(statuses), url + self._object())
        for target in _TARGETS:
            yield self._redirect("redirect elsewhere", next(statuses), target.format(self._object()))
        for status, target in itertools.product(
            (301, 302, 303, 307, 308), ("http://127.0.0.1/a", "http://169.254.169.254/latest/", "http://[::1]/a")
        ):
            yield self._redirect("redirect of each status", status, target)
        for length in (2, 3, 4, 6):
            yield self._chain(length)
        two = (f"http://{GOOD_HOST}/pictures/{self._object()}", "http://127.0.0.1/")
        # The first of two counts.
        yield self._redirect("two redirects", 302, "\r\nLocation: ".join(two))._replace(is_refused=False)
        yield self._redirect("two redirects", 302, "\r\nLocation: ".join(reversed(two)))
        yield self._redirect("two responses", 302, "http://127.0.0.1/\r\n\r\nHTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/")

    def _redirect(self, kind: str, status: int, location: str) -> Case:
        name = self._object()
        self.replies[f"{GOOD_HOST}/pictures/{name}"] = http_response(status, f"Location: {location}".encode().decode("latin-1"))
        return Case(kind, "GET", self._get("good", name))

    def _chain(self, length: int) -> Case:
        names = [self._object() for _ in range(length)]
        targets = [*(f"http://{GOOD_HOST}/pictures/{name}" for name in names[1:]), "http://n6.example/a.jpg"]
        for name, target in zip(names, targets, strict=True):
            self.replies[f"{GOOD_HOST}/pictures/{name}"] = http_response(302, f"Location: {target}")
        return Case("chain of redirects", "GET", self._get("good", names[0]))

    def _responses(self) -> Iterator[Case]:
        for status, field in _ODD_RESPONSES:
            yield self._reply("response", http_response(status, field, body=self._picture), is_refused=status != 200)
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: <http://127.0.0.1/>; rel=preload\r\n\r\n"
        yield self._reply("response", hints + http_response(200, body=self._picture), is_refused=False)
        page = b'<html><meta http-equiv="refresh" content="0; url=http://127.0.0.1/"><img src="http://127.0.0.1/"></html>'
        yield self._reply("response", http_response(200, "Content-Type: text/html", body=page))

    def _images(self) -> Iterator[Case]:
        targets = itertools.cycle(
            ("http://127.0.0.1/a.png", "http://169.254.169.254/latest/", "//[::1]/a.png", "file:///etc/passwd", "https://n2.example/a")
        )
        for part in _SVG_PARTS:
            svg = _SVG.format(part.format(next(targets)))
            yield self._reply("image", http_response(200, "Content-Type: image/svg+xml", body=svg.encode()), is_refused=False)
        for start in _SVG_STARTS:
            svg = start.format(next(targets)) + _SVG.format("<text>&a;</text>" if "ENTITY a" in start else "")
            yield self._reply("image", http_response(200, "Content-Type: image/svg+xml", body=svg.encode()), is_refused=False)

    def _reply(self, kind: str, reply: bytes, *, is_refused: bool = True) -> Case:
        name = self._object()
        self.replies[f"{GOOD_HOST}/pictures/{name}"] = reply
        return Case(kind, "GET", self._get("good", name), is_refused=is_refused)

    def _requests(self) -> Iterator[Case]:
        for path in _PATHS:
            # A path that is nothing but a name below the source is requested from the good host.
            yield Case("path", "GET", f"/from/good/{path}/width=320/-.webp", is_refused=False)
        for target in _TARGETS:
            yield Case("URL", "POST", "/v1/images", json.dumps({"url": target.format(self._object())}))
        for url in ("http://127.0.0.1/a.jpg", "http://169.254.169.254/latest/meta-data/", "http://[::1]/a.jpg"):
            encoded = quote(url, safe="")
            for path in (
                f"/from/{encoded}/a.jpg/width=320/-.webp",
                f"/from/{url}/width=320/-.webp",
                f"/i/v3/{encoded}/width=320/-.webp",
                f"/v1/images/{encoded}",
                f"/v1/sources/{encoded}/images",
            ):
                yield Case("URL in a path", "GET", path)
            overlay = SourceUrl("good", self._object(), f"overlay={encoded}", "webp")
            yield Case("URL of an overlay", "GET", overlay.path("-"))

    def _bucket(self) -> Iterator[Case]:
        targets = (
            *list(self._hostile.values())[::8],
            "https://127.0.0.1/a",
            "http://n2.example/a",
            f"http://{GOOD_HOST}/pictures/a.jpg",
        )
        for status, target in zip(itertools.cycle((301, 302, 303, 307, 308)), targets, strict=False):
            name = self._object()
            self.replies[f"{BUCKET_HOST}/{BUCKET}/{name}"] = http_response(status, f"Location: {target}")
            yield Case("redirect of a bucket", "GET", self._get("bucket", name))

    def _object(self) -> str:
        return f"{next(self._numbers)}.jpg"

    def _get(self, source: str, path: str, *, signed: bool = False) -> str:
        url = SourceUrl(source, path, "width=333" if signed else "width=320", "webp")
        return self._signer.sign(url) if signed else url.path("-")


class Rebinding:
    """A name whose address is public at the first look-up, and inside the network at the others."""

    def __init__(self) -> None:
        self.queries = 0

    def __call__(self, kind: int) -> tuple[str, ...]:
        if kind != 1:
            return ()
        self.queries += 1
        return (HOST_ADDRESS,) if self.queries == 1 else ("127.0.0.1",)


def misleading_environment() -> Mapping[str, str]:
    """Return what must have no effect: proxies, and credentials that belong to nobody here."""
    proxy = "http://10.11.12.13:3128"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    return {
        **dict.fromkeys(names, proxy),
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.2/credentials",
        "AWS_ENDPOINT_URL": "http://10.11.12.14",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://169.254.169.254",
        "GCE_METADATA_HOST": "169.254.169.254",
    }
