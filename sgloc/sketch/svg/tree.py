"""An SVG's elements, read with bounds on everything that a small file can make large."""

from collections.abc import Iterator
from xml.parsers import expat

_SVG_NAMESPACE = "http://www.w3.org/2000/svg"
_MOST_DEPTH = 1000
_MOST_ELEMENTS = 200_000
_MOST_ATTRIBUTES = 500_000
_MOST_CHARACTERS = 40 * 2**20
_MOST_PREFIXES = 16


class UnreadableError(Exception):
    """Why an SVG cannot be read: the rest of a sentence that begins with the file's name."""


class Element:
    """An element of an SVG.

    Attributes:
        tag: its name without a prefix; empty where it is not SVG's.
        attributes: as they stand in the file, prefixes included.
        parent: the element that holds it; None of the root.
        children: the elements it holds.
        text: of a style element, its content.
    """

    __slots__ = ("attributes", "children", "parent", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], parent: "Element | None") -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element] = []
        self.text = ""

    def walk(self) -> Iterator["Element"]:
        """The element and all below it, in the order of the file."""
        stack = [self]
        while stack:
            element = stack.pop()
            yield element
            stack += reversed(element.children)


def parse_tree(content: bytes) -> Element:
    """The root of an SVG.

    Args:
        content: the file, unpacked, in any encoding that XML has.

    Raises:
        UnreadableError: if it is not XML, its root is not an svg element, or it is larger than any drawing.
    """
    if content.count(b"<") > 2 * _MOST_ELEMENTS or content.count(b"=") > _MOST_ATTRIBUTES:
        raise UnreadableError(
            f"has more than {_MOST_ELEMENTS:,} elements or {_MOST_ATTRIBUTES:,} attributes; simplify it first"
        )
    builder = _Builder(content.count(b"&"))
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    parser.EntityDeclHandler = builder.declare_entity
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise UnreadableError(f"is no SVG that can be read ({error}); save it anew as plain SVG") from error
    assert builder.root is not None
    if builder.root.tag != "svg":
        raise UnreadableError("is XML, but its first element is not svg; save it anew as plain SVG")
    return builder.root


class _Builder:
    """Makes elements of what the parser finds.

    Args:
        num_references: the most references to entities that the file can hold.
    """

    def __init__(self, num_references: int) -> None:
        self.root: Element | None = None
        self._num_references = num_references
        self._open: list[Element] = []
        # Prefixes that stand for SVG; files that do not declare them are read nevertheless.
        self._prefixes: list[frozenset[str]] = [frozenset({"", "svg"})]
        self._num_elements = self._num_attributes = self._num_characters = 0

    def declare_entity(self, name: str, is_parameter: int, value: str | None, *_: object) -> None:
        if is_parameter or value is None:
            return
        # Illustrator writes its namespaces as entities. Nothing writes entities of entities but to do harm.
        if "&" in value or len(value) * self._num_references > _MOST_CHARACTERS:
            raise UnreadableError(f"declares an entity {name[:40]!r} that expands too far; save it anew as plain SVG")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._num_elements += 1
        self._num_attributes += len(attributes)
        self._num_characters += sum(map(len, attributes.values()))
        if (
            self._num_elements > _MOST_ELEMENTS
            or self._num_attributes > _MOST_ATTRIBUTES
            or self._num_characters > _MOST_CHARACTERS
        ):
            raise UnreadableError("expands to far more than a drawing needs; save it anew as plain SVG")
        if len(self._open) >= _MOST_DEPTH:
            raise UnreadableError(f"nests elements more than {_MOST_DEPTH:,} deep; ungroup them first")
        self._prefixes.append(_declared(self._prefixes[-1], attributes))
        prefix, _, local = name.rpartition(":")
        parent = self._open[-1] if self._open else None
        element = Element(local if prefix in self._prefixes[-1] else "", attributes, parent)
        if parent is None:
            self.root = element
        else:
            parent.children.append(element)
        self._open.append(element)

    def end(self, name: str) -> None:
        self._open.pop()
        self._prefixes.pop()

    def characters(self, text: str) -> None:
        if self._open[-1].tag == "style":
            self._open[-1].text += text


def _declared(prefixes: frozenset[str], attributes: dict[str, str]) -> frozenset[str]:
    """Which prefixes stand for SVG inside an element of these attributes."""
    for name, value in attributes.items():
        if name == "xmlns" or name.startswith("xmlns:"):
            prefix = name[6:]
            if value.strip() != _SVG_NAMESPACE:
                prefixes = prefixes - {prefix}
            elif len(prefixes) < _MOST_PREFIXES:
                prefixes = prefixes | {prefix}
    return prefixes
