"""XMP (ISO 16684-1): reads packets, selects the properties that state rights, and adds properties. Packets are UTF-8 unless stated."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Literal, NamedTuple, TypeAlias
from xml.parsers import expat

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC = "http://purl.org/dc/elements/1.1/"
_RIGHTS = "http://ns.adobe.com/xap/1.0/rights/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_PLUS = "http://ns.useplus.org/ldf/xmp/1.0/"
_CC = "http://creativecommons.org/ns#"
_IPTC_CORE = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
_XML = "http://www.w3.org/XML/1998/namespace"
_PREFIXES = {RDF: "rdf", _DC: "dc", _RIGHTS: "xmpRights", _PHOTOSHOP: "photoshop", _PLUS: "plus", _CC: "cc", _IPTC_CORE: "Iptc4xmpCore"}

# Names are written as expat reports them: the namespace, a space, the local name.
_WRAPPERS = frozenset({"adobe:ns:meta/ xmpmeta", "adobe:ns:meta/ xapmeta", f"{RDF} RDF", f"{RDF} Description"})
# The properties of IPTC Photo Metadata, PLUS and Creative Commons that state the owner, the credit and the license of a picture.
_RIGHTS_PROPERTIES = frozenset(
    {
        *(f"{_DC} {name}" for name in ("creator", "rights")),
        *(f"{_RIGHTS} {name}" for name in ("Certificate", "Marked", "Owner", "UsageTerms", "WebStatement")),
        f"{_PHOTOSHOP} Credit",
        *(f"{_PLUS} {name}" for name in ("CopyrightOwner", "ImageCreator", "Licensor")),
        *(f"{_CC} {name}" for name in ("attributionName", "attributionURL", "license")),
    }
)
# Members of their values; a licensor also has addresses and telephone numbers, which are left out.
_RIGHTS_MEMBERS = frozenset(f"{_PLUS} {name}" for name in ("CopyrightOwnerName", "ImageCreatorName", "LicensorName", "LicensorURL"))
_RDF_ELEMENTS = frozenset(f"{RDF} {name}" for name in ("Alt", "Bag", "Description", "Seq", "li", "value"))
_LANGUAGE, _RESOURCE, _PARSE_TYPE = f"{_XML} lang", f"{RDF} resource", f"{RDF} parseType"

# The end tag before which properties can be added.
_RDF_END = re.compile(rb"</(?:[\w-]{1,40}:)?RDF\s*>")

# Packets of cameras and editors have some KiB. Larger ones, and deeper ones, are not parsed.
_MAX_PARSED_BYTES, _MAX_DEPTH = 2 << 20, 64
# The packet of a JPEG must fit into a segment of 64 KiB.
MAX_PACKET_BYTES = 65_000

Form: TypeAlias = Literal["text", "Alt", "Seq", "Bag"]


class Property(NamedTuple):
    """The name of a property, as expat reports it, and its form: a text, texts by language, or an ordered or unordered list."""

    name: str
    form: Form


CREATOR, COPYRIGHT_NOTICE = Property(f"{_DC} creator", "Seq"), Property(f"{_DC} rights", "Alt")
CREDIT = Property(f"{_PHOTOSHOP} Credit", "text")
TITLE, DESCRIPTION, KEYWORDS = Property(f"{_DC} title", "Alt"), Property(f"{_DC} description", "Alt"), Property(f"{_DC} subject", "Bag")
LOCATION = Property(f"{_IPTC_CORE} Location", "text")


def photoshop(name: str) -> Property:
    """Return the simple property of that name in the namespace of Photoshop."""
    return Property(f"{_PHOTOSHOP} {name}", "text")


class _NotXmpError(Exception):
    """A packet declares entities or is nested deeper than any program writes it."""


def values(packet: bytes) -> dict[str, list[str]]:
    """Return the simple values in a packet by `namespace name`, those of a list in their order; as far as it is well-formed."""
    found: dict[str, list[str]] = {}
    # The property of each open element: the members of a list belong to the property around it.
    properties = [""]
    text: list[str] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        if len(properties) > _MAX_DEPTH:
            raise _NotXmpError
        properties.append(properties[-1] if name.startswith(RDF) else name)
        text.clear()
        for key, value in attributes.items():
            found.setdefault(key, []).append(value.strip())

    def end(_: str) -> None:
        name, value = properties.pop(), "".join(text).strip()
        text.clear()
        if value:
            found.setdefault(name, []).append(value)

    parser = _parser()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, text.append
    _parse(parser, packet)
    return found


def rights(packet: bytes) -> tuple[str, frozenset[str]]:
    """Return the properties in a packet that state rights, as XML without their wrapper, and their names.

    A packet that is not well-formed, that declares entities or is very large or deep has none.
    """
    selection = _RightsSelection()
    parser = _parser()
    parser.StartElementHandler, parser.EndElementHandler = selection.begin, selection.end
    parser.CharacterDataHandler = selection.add_text
    if not _parse(parser, packet):
        return "", frozenset()
    return "".join(selection.parts), frozenset(selection.found)


class _RightsSelection:
    """Copies the properties that state rights while a packet is parsed."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.found: set[str] = set()
        # For each open element: `None` for a wrapper, its tag if it is copied, empty if it is left out with everything in it.
        self._open: list[str | None] = []
        self._length = self._start = self._start_length = 0
        self._has_value = False

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= _MAX_DEPTH:
            raise _NotXmpError
        parent = self._open[-1] if self._open else None
        if parent is None and name in _WRAPPERS:
            self._open.append(None)
            for key, value in attributes.items():
                if key in _RIGHTS_PROPERTIES and value.strip() and key not in self.found:
                    self._begin_property(key, {})
                    self.add_text(value)
                    self.end(key)
        elif parent is None and name in _RIGHTS_PROPERTIES and name not in self.found:
            self._begin_property(name, attributes)
        elif parent and name in _RDF_ELEMENTS | _RIGHTS_MEMBERS:
            self._begin_copy(name, attributes)
        else:
            self._open.append("")

    def add_text(self, text: str) -> None:
        if self._open and self._open[-1]:
            self._add(escape(text))
            self._has_value |= bool(text.strip())

    def end(self, name: str) -> None:
        tag = self._open.pop()
        if not tag:
            return
        self._add(f"</{tag}>")
        if self._open and self._open[-1]:
            return
        if self._has_value and self._length <= MAX_PACKET_BYTES:
            self.found.add(name)
        else:
            # An empty property, or one that does not fit into a segment of a JPEG.
            del self.parts[self._start :]
            self._length = self._start_length

    def _begin_property(self, name: str, attributes: dict[str, str]) -> None:
        self._start, self._start_length, self._has_value = len(self.parts), self._length, False
        self._begin_copy(name, attributes)

    def _begin_copy(self, name: str, attributes: dict[str, str]) -> None:
        tag = _tag(name)
        self._open.append(tag)
        self._add(f"<{tag}")
        for key, value in attributes.items():
            if key == _LANGUAGE or (key == _PARSE_TYPE and value == "Resource"):
                self._add(f' {_tag(key)}="{escape(value)}"')
            elif key == _RESOURCE or key in _RIGHTS_MEMBERS:
                self._add(f' {_tag(key)}="{escape(value)}"')
                self._has_value |= bool(value.strip())
        self._add(">")

    def _add(self, part: str) -> None:
        self.parts.append(part)
        self._length += len(part.encode())


def property_xml(kind: Property, texts: Iterable[str]) -> str:
    """Return a property as XML without its wrapper."""
    tag = _tag(kind.name)
    clean = [escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)) for text in texts]
    if kind.form == "text":
        return f"<{tag}>{', '.join(clean)}</{tag}>"
    if kind.form == "Alt":
        return f'<{tag}><rdf:Alt><rdf:li xml:lang="x-default">{", ".join(clean)}</rdf:li></rdf:Alt></{tag}>'
    members = "".join(f"<rdf:li>{text}</rdf:li>" for text in clean)
    return f"<{tag}><rdf:{kind.form}>{members}</rdf:{kind.form}></{tag}>"


def description(properties: str) -> bytes:
    """Return a description of the picture with properties as from `rights` and `property_xml`, in UTF-8."""
    used = "".join(f' xmlns:{prefix}="{space}"' for space, prefix in _PREFIXES.items() if space == RDF or f"<{prefix}:" in properties)
    return f'<rdf:Description rdf:about=""{used}>{properties}</rdf:Description>'.encode()


def packet_of(described: bytes) -> bytes:
    """Return a packet with a description."""
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="' + RDF.encode() + b'">' + described + b"</rdf:RDF></x:xmpmeta>"


def add(packet: bytes, described: bytes, max_bytes: int = MAX_PACKET_BYTES) -> bytes:
    """Return a packet with a further description, which declares its own prefixes.

    packet: empty or damaged if there is none. If both together have more than `max_bytes`, it is left out.
    """
    ends = list(_RDF_END.finditer(packet))
    if ends and len(packet) + len(described) <= max_bytes:
        return packet[: ends[-1].start()] + described + packet[ends[-1].start() :]
    return packet_of(described)


def _tag(name: str) -> str:
    namespace, _, local = name.rpartition(" ")
    return f"xml:{local}" if namespace == _XML else f"{_PREFIXES[namespace]}:{local}"


def _parser() -> expat.XMLParserType:
    parser = expat.ParserCreate(namespace_separator=" ")
    # Without declarations there are no entities that could expand to very much text.
    parser.StartDoctypeDeclHandler = _refuse_declarations
    return parser


def _refuse_declarations(*_: object) -> None:
    raise _NotXmpError


def _parse(parser: expat.XMLParserType, packet: bytes) -> bool:
    """Parse a packet, and return whether it is well-formed."""
    if len(packet) > _MAX_PARSED_BYTES:
        return False
    try:
        parser.Parse(packet.strip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, ValueError, _NotXmpError):
        return False
    return True
