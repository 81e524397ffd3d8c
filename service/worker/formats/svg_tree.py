"""Reading an SVG document into a tree, without anything that could act or load a file.

Scripts, event handlers, animation and references to other files are left out and reported as warnings: browsers do not run or load them
either in the SVG of an `<img>` (SVG 2 §2.7.1, secure static mode). Elements of other namespaces draw nothing and are left out silently.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import NoReturn
from xml.parsers import expat

from service.rendering.protocol import Failure, FailureKind, ImageError

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
XML = "http://www.w3.org/XML/1998/namespace"

MAX_BYTES = 4 << 20
MAX_ELEMENTS = 20_000
MAX_DEPTH = 64

# Limits of an internal subset. Illustrator declares about twelve namespaces, of up to 60 characters each.
_MAX_ENTITIES = 100
_MAX_ENTITY_CHARACTERS = 1_024
_MAX_EXPANDED_CHARACTERS = 1 << 20
_MAX_DEFAULT_CHARACTERS = 4_096

MAX_WARNINGS = 16
_MAX_WARNING_CHARACTERS = 200


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


TEXTS = frozenset({"text", "tspan", "textPath"})
SHAPES = frozenset({"path", "rect", "circle", "ellipse", "line", "polyline", "polygon"})
FILTER_PRIMITIVES = word_set(
    """
    feBlend feColorMatrix feComponentTransfer feComposite feConvolveMatrix feDiffuseLighting feDisplacementMap feDropShadow feFlood
    feGaussianBlur feImage feMerge feMorphology feOffset feSpecularLighting feTile feTurbulence
    """
)
_FILTER_PARTS = word_set("feFuncA feFuncB feFuncG feFuncR feMergeNode feDistantLight fePointLight feSpotLight")
ELEMENTS = (
    TEXTS
    | SHAPES
    | FILTER_PRIMITIVES
    | _FILTER_PARTS
    | word_set(
        """
        svg g defs symbol use switch image linearGradient radialGradient stop clipPath mask pattern marker filter foreignObject
        """
    )
)
_ANIMATION = frozenset({"animate", "animateColor", "animateMotion", "animateTransform", "set"})
# Elements that show something in a `foreignObject` although they have no text.
_VISIBLE_HTML = frozenset({"img", "video", "canvas", "svg", "iframe", "object", "embed", "input", "button", "hr", "math"})
_VISIBLE_STYLE = re.compile(r"background|border|outline|box-shadow", re.IGNORECASE)

_SCRIPT_URL = re.compile(r"[\s\x00-\x1f]*(?:javascript|vbscript)\s*:", re.IGNORECASE)
_DECLARED_ENCODING = re.compile(rb"\s*<\?xml[^>]{0,200}?\sencoding\s*=\s*[\"']([A-Za-z0-9._:-]{1,40})[\"']")
_CHARACTER_REFERENCE = re.compile(r"&#(?:[0-9]+|x[0-9a-fA-F]+);")
_SVG_TAG = re.compile(rb"<(?:[A-Za-z_][\w.-]*:)?svg[\s/>]")
# The parts of a prologue (XML 1.0 §2.8): white space, comments, processing instructions, and a document type with its internal subset.
_PROLOGUE = re.compile(
    rb"""\s+ | <!--.*?--> | <\?.*?\?> |
    <!DOCTYPE (?: [^\["'>]++ | "[^"]*+" | '[^']*+' )*+ (?: \[ (?: [^\]"'<]++ | "[^"]*+" | '[^']*+' | <!--.*?--> | <(?!!--) )*+ \] \s*+ )? >
    """,
    re.DOTALL | re.VERBOSE,
)

# Encodings of the Encoding Standard that Python names differently or lacks (§4.2), and those that a document cannot be in because its
# declaration was readable.
_ENCODINGS = {
    "utf8": "utf-8",
    "us-ascii": "cp1252",
    "ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "iso8859-1": "cp1252",
    "latin1": "cp1252",
    "gb2312": "gbk",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "macintosh": "mac-roman",
    "utf-16": "utf-8",
    "utf-16le": "utf-8",
    "utf-16be": "utf-8",
}
_PYTHON_ENCODINGS = re.compile(
    r"utf-8|cp1252|gbk|gb18030|big5|cp932|cp949|euc[-_]jp|mac-roman|koi8-[ru]|windows-125[0-8]|iso-?8859-\d{1,2}", re.IGNORECASE
)


class Node:
    """An element of a document.

    tag: the local name, of `ELEMENTS`. name: the same as the document has it, for selectors.
    attributes: those without a namespace, and `xml:space` and `xml:lang`. `href` has the value of `xlink:href` if there is no other.
    children: elements, and the text between them. elements: only the former.
    everything: the elements and those that were left out, which selectors count. counts: how many of all have each name.
    has_content: whether a `foreignObject` shows something.
    index, type_index: number of elements, and of elements with the same name, before it with the same parent.
    """

    __slots__ = (
        "attributes",
        "children",
        "classes",
        "counts",
        "elements",
        "everything",
        "has_content",
        "id",
        "index",
        "name",
        "parent",
        "tag",
        "type_index",
    )

    def __init__(self, tag: str, attributes: dict[str, str], parent: Node | None) -> None:
        self.tag = self.name = tag
        self.attributes = attributes
        self.parent = parent
        self.children: list[Node | str] = []
        self.elements: list[Node] = []
        self.everything: list[Node] = []
        self.counts: dict[str, int] = {}
        self.has_content = False
        self.id = attributes.get("id", "")
        self.classes = frozenset(attributes.get("class", "").split())
        self.index = self.type_index = 0

    def walk(self) -> Iterator[Node]:
        """Yield this element and all below it, in the order of the document."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.elements)


class Document:
    """A document that was read.

    root: the `svg` element.
    ids: the first element with each id.
    sheets: the text of each style sheet, and the value of its `media` attribute.
    elements: how many there are, including those that were left out.
    """

    def __init__(self) -> None:
        self.root = Node("svg", {}, None)
        self.ids: dict[str, Node] = {}
        self.sheets: list[tuple[str, str]] = []
        self.elements = 0


class Warnings:
    """The sentences that report what was removed from a document, each once."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}

    def add(self, sentence: str) -> None:
        """Add a sentence unless it is there, or there are `MAX_WARNINGS`."""
        if len(self._sentences) < MAX_WARNINGS:
            printable = "".join(character if character.isprintable() else " " for character in sentence)
            self._sentences.setdefault(printable[:_MAX_WARNING_CHARACTERS])

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences, in the order in which they were added first."""
        return tuple(self._sentences)


def refuse(kind: FailureKind, detail: str, expected: str, received: str) -> NoReturn:
    """Raise an `ImageError` for a document that is not drawn."""
    raise ImageError(Failure(kind, detail, expected, received, "Simplify the drawing, or export it as PNG, and send that."))


def refuse_unsupported(feature: str, received: str) -> NoReturn:
    """Raise an `ImageError` for a document that would come out visibly wrong.

    feature: what is not supported, in the plural: "Masks made of gradients".
    """
    refuse(
        "unsupported",
        f"{feature} are not supported, and without them the drawing would come out wrong.",
        "a drawing without them",
        received[:80],
    )


def is_svg(body: bytes | memoryview) -> bool:
    """Return whether a file is an SVG document: its first element is `svg`.

    body: the whole file, or its beginning. At most `MAX_BYTES` of it are read, and only if it begins as XML does.
    """
    head = bytes(body[:64])
    if _is_utf_16(head):
        beginning = bytes(body[:MAX_BYTES]).decode(_utf_16(head), "ignore").encode("utf-8", "ignore")
    elif head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in {b"<", b""} and head:
        beginning = bytes(body[:MAX_BYTES])
    else:
        return False
    position = len(codecs.BOM_UTF8) if beginning.startswith(codecs.BOM_UTF8) else 0
    while part := _PROLOGUE.match(beginning, position):
        position = part.end()
    return _SVG_TAG.match(beginning, position) is not None


def read(body: bytes, warnings: Warnings) -> Document:
    """Return the tree of a document.

    Raises `ImageError`: `broken` if it is not well-formed, `unsupported` if it declares entities other than plain text, and
    `too-many-pixels` if it has too many bytes or elements.
    """
    if len(body) > MAX_BYTES:
        refuse("too-many-pixels", "The SVG document is too large.", f"at most {MAX_BYTES} bytes", f"{len(body)} bytes")
    try:
        reader = _Reader(_to_utf_8(body), warnings)
        reader.parse()
    except expat.ExpatError as error:
        refuse("broken", "This SVG is not well-formed.", "well-formed XML", f"{expat.ErrorString(error.code)} in line {error.lineno}")
    except (ValueError, LookupError) as error:
        refuse("broken", "This SVG is not well-formed.", "well-formed XML in a known encoding", type(error).__name__)
    return reader.document


def _is_utf_16(head: bytes) -> bool:
    return head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"<\0", b"\0<"))


def _utf_16(head: bytes) -> str:
    return "utf-16-be" if head.startswith((codecs.BOM_UTF16_BE, b"\0<")) else "utf-16-le"


def _to_utf_8(body: bytes) -> bytes:
    """Return a document in UTF-8, without a byte order mark. Raises `UnicodeDecodeError`."""
    if _is_utf_16(body):
        return body.decode(_utf_16(body)).removeprefix("\ufeff").encode()
    if body.startswith(codecs.BOM_UTF8):
        return body[len(codecs.BOM_UTF8) :]
    declared = _DECLARED_ENCODING.match(body[:1_024])
    name = declared[1].decode("ascii").lower() if declared else "utf-8"
    name = _ENCODINGS.get(name, name)
    if name == "utf-8" or not _PYTHON_ENCODINGS.fullmatch(name):
        return body
    return body.decode(name, "replace").encode()


class _Reader:
    """Builds the tree while the document is parsed."""

    def __init__(self, body: bytes, warnings: Warnings) -> None:
        """Prepare to parse a document.

        body: in UTF-8.
        """
        self.document = Document()
        self._body = body
        self._warnings = warnings
        self._stack: list[Node] = []
        self._skipped_depth = 0
        self._foreign: Node | None = None
        self._sheet: tuple[list[str], str] | None = None
        self._entities: dict[str, str] = {}
        self._declared = self._default_characters = 0
        self._parser = expat.ParserCreate("utf-8", " ")
        self._parser.buffer_text = True
        self._parser.EntityDeclHandler = self._declare_entity
        self._parser.AttlistDeclHandler = self._declare_attribute
        self._parser.EndDoctypeDeclHandler = self._check_expansion
        self._parser.ProcessingInstructionHandler = self._instruct
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text

    def parse(self) -> None:
        """Parse the whole document. Raises `ExpatError` and `ImageError`."""
        self._parser.Parse(self._body, True)

    def _declare_entity(  # noqa: PLR0917 - as the parser calls it
        self,
        name: str,
        is_parameter: bool,
        value: str | None,
        base: str | None,  # noqa: ARG002
        system_id: str | None,
        public_id: str | None,
        notation: str | None,
    ) -> None:
        self._declared += 1
        if self._declared > _MAX_ENTITIES:
            _refuse_entities(f"more than {_MAX_ENTITIES} entities")
        if is_parameter or value is None or system_id or public_id or notation:
            _refuse_entities("a parameter entity" if is_parameter else "an entity that refers to another file")
        if len(value) > _MAX_ENTITY_CHARACTERS:
            _refuse_entities(f"an entity of {len(value)} characters")
        if "<" in value or "&" in _CHARACTER_REFERENCE.sub("", value):
            _refuse_entities("an entity with markup or other entities in it")
        self._entities.setdefault(name, value)

    def _declare_attribute(self, element: str, name: str, kind: str, default: str | None, required: bool) -> None:  # noqa: ARG002
        # The parser adds defaults to every element.
        self._declared += 1
        self._default_characters += len(default or "")
        if self._default_characters > _MAX_DEFAULT_CHARACTERS or self._declared > _MAX_ENTITIES:
            _refuse_entities("too many attributes with default values")

    def _check_expansion(self) -> None:
        expanded = sum(self._body.count(f"&{name};".encode()) * len(value) for name, value in self._entities.items())
        if expanded > _MAX_EXPANDED_CHARACTERS:
            _refuse_entities(f"entities that expand to {expanded} characters")

    def _instruct(self, target: str, data: str) -> None:  # noqa: ARG002
        if target == "xml-stylesheet":
            self._warnings.add("Removed a style sheet that is in another file.")

    def _start(self, name: str, raw: dict[str, str]) -> None:
        self.document.elements += 1
        if self.document.elements > MAX_ELEMENTS:
            refuse("too-many-pixels", "The SVG has too many elements.", f"at most {MAX_ELEMENTS}", "more")
        namespace, _, local = name.rpartition(" ")
        self._note_foreign(local, raw)
        self._warn_of_removed(namespace, local, raw)
        # Elements without a namespace count as SVG, because hand-made documents often lack the declaration.
        tag = local if namespace in {SVG, ""} else None
        if self.document.elements == 1 and tag != "svg":
            refuse("broken", "The document's first element is not `svg`.", f"svg in the namespace {SVG}", name)
        if tag == "style" and not self._skipped_depth and raw.get("type", "text/css").strip().lower() in {"", "text/css"}:
            self._sheet = [], raw.get("media", "")
        if tag == "a":
            tag = "tspan" if self._stack and self._stack[-1].tag in TEXTS else "g"
        if self._skipped_depth or tag is None or tag not in ELEMENTS:
            if not self._skipped_depth and self._stack:
                self._count(Node(local, {}, self._stack[-1]), local)
            self._skipped_depth += 1
            return
        if len(self._stack) >= MAX_DEPTH:
            refuse("too-many-pixels", "The SVG is nested too deeply.", f"at most {MAX_DEPTH} levels", "more")
        self._add(tag, local, _attributes(raw))

    @staticmethod
    def _count(node: Node, name: str) -> None:
        """Count an element among those of its parent."""
        node.name = name
        parent = node.parent
        if parent is not None:
            node.index, node.type_index = len(parent.everything), parent.counts.get(name, 0)
            parent.everything.append(node)
            parent.counts[name] = node.type_index + 1

    def _add(self, tag: str, name: str, attributes: dict[str, str]) -> None:
        parent = self._stack[-1] if self._stack else None
        node = Node(tag, attributes, parent)
        if parent is None:
            self.document.root = node
        else:
            parent.children.append(node)
            parent.elements.append(node)
            self._count(node, name)
        if node.id:
            self.document.ids.setdefault(node.id, node)
        if tag == "foreignObject":
            # Its content is not drawn; it matters only whether there is any.
            self._foreign = node
            self._skipped_depth += 1
        self._stack.append(node)

    def _end(self, name: str) -> None:
        if self._sheet is not None and name.rpartition(" ")[2] == "style":
            self.document.sheets.append(("".join(self._sheet[0]), self._sheet[1]))
            self._sheet = None
        if self._foreign is not None and self._skipped_depth == 1:
            self._foreign = None
            self._skipped_depth = 0
        if self._skipped_depth:
            self._skipped_depth -= 1
            return
        self._stack.pop()

    def _text(self, text: str) -> None:
        if self._sheet is not None:
            self._sheet[0].append(text)
        elif self._foreign is not None:
            self._foreign.has_content |= bool(text.strip())
        elif not self._skipped_depth and self._stack and self._stack[-1].tag in TEXTS:
            self._stack[-1].children.append(text)

    def _note_foreign(self, local: str, raw: dict[str, str]) -> None:
        if self._foreign is not None and (local.lower() in _VISIBLE_HTML or _VISIBLE_STYLE.search(raw.get("style", ""))):
            self._foreign.has_content = True

    def _warn_of_removed(self, namespace: str, local: str, raw: dict[str, str]) -> None:
        if local.lower() == "script":
            self._warnings.add("Removed a script.")
        if any(name[:2].lower() == "on" for name in raw if " " not in name):
            self._warnings.add("Removed an event handler.")
        if any(name.rpartition(" ")[2] == "href" and _SCRIPT_URL.match(value) for name, value in raw.items()):
            self._warnings.add("Removed a link to a script.")
        if namespace == SVG and local in _ANIMATION:
            self._warnings.add("Removed animation: the drawing is shown as it is without it.")
        if local == "link" and "stylesheet" in raw.get("rel", ""):
            self._warnings.add("Removed a style sheet that is in another file.")


def _attributes(raw: dict[str, str]) -> dict[str, str]:
    """Return the attributes that may affect the drawing, or that selectors may refer to."""
    attributes: dict[str, str] = {}
    for name, value in raw.items():
        namespace, space, local = name.rpartition(" ")
        if not space:
            if name[:2].lower() != "on":
                attributes[name] = value
        elif namespace == XML:
            attributes[f"xml:{local}"] = value
    if f"{XLINK} href" in raw:
        attributes.setdefault("href", raw[f"{XLINK} href"])
    return attributes


def _refuse_entities(received: str) -> NoReturn:
    refuse(
        "unsupported",
        "This SVG declares entities that are not supported.",
        f"entities of plain text, at most {_MAX_ENTITIES} of {_MAX_ENTITY_CHARACTERS} characters each",
        received,
    )
