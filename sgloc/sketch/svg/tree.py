"""Parser for the elements of an SVG, with limits on everything that a small file can inflate."""

from collections.abc import Iterator
from xml.parsers import expat

from sgloc.sketch.svg.limits import LIMITS, Limits, UnreadableError

_SVG_NAMESPACE = "http://www.w3.org/2000/svg"
_MOST_DEPTH = 1000
_MOST_PREFIXES = 16


class Element:
    """An element of an SVG.

    Attributes:
        tag: the name without a prefix; empty for elements outside the SVG namespace.
        attributes: as written in the file, including prefixes.
        names: the names by which CSS selectors match the element: its tag, "#" plus its id, and "." plus each class.
        parent: the enclosing element; None for the root.
        children: the child elements.
        text: the content of a style element; empty for others.
    """

    __slots__ = ("attributes", "children", "names", "parent", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], parent: "Element | None") -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        classes = [f".{name}" for name in attributes.get("class", "").split()]
        self.names = frozenset([tag, f"#{attributes.get('id', '')}", *classes])
        self.children: list[Element] = []
        self.text = ""

    def walk(self) -> Iterator["Element"]:
        """Yield the element and all its descendants in document order."""
        stack = [self]
        while stack:
            element = stack.pop()
            yield element
            stack += reversed(element.children)


def parse_tree(content: bytes, limits: Limits) -> Element:
    """Parse an SVG and return its root element.

    Args:
        content: the decompressed file, in any encoding that XML supports.
        limits: the limits on the file.

    Raises:
        UnreadableError: if the file is not XML, its root is not an svg element, or it exceeds a limit.
    """
    # The parser delivers all attributes of an element at once, so bound their number before parsing.
    Limits().count("attribute", content.count(b"="))
    builder = _Builder(content.count(b"&"), limits)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    parser.EntityDeclHandler = builder.declare_entity
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise UnreadableError(f"is not a readable SVG ({error}); save it again as plain SVG") from error
    (root,) = builder.document.children
    if root.tag != "svg":
        raise UnreadableError("is XML, but its root element is not svg; save it again as plain SVG")
    root.parent = None
    return root


class _Builder:
    """Builder of elements from parser events.

    Args:
        num_references: upper bound on the number of entity references in the file.
        limits: the limits on the file.
    """

    def __init__(self, num_references: int, limits: Limits) -> None:
        self._num_references, self._limits = num_references, limits
        self.document = Element("", {}, None)
        # The open elements, each with the prefixes that mean SVG inside it; these two do even if undeclared.
        self._open = [(self.document, frozenset({"", "svg"}))]

    def declare_entity(self, name: str, is_parameter: int, value: str | None, *_: object) -> None:
        if is_parameter or value is None:
            return
        # Illustrator writes its namespaces as entities. Entities that contain entities occur only in attacks.
        if "&" in value or len(value) * self._num_references > LIMITS["character of attributes"][0]:
            raise UnreadableError(f"declares an entity {name[:40]!r} that expands too far; save it again as plain SVG")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._limits.count("element of the file")
        self._limits.count("attribute", len(attributes))
        self._limits.count("character of attributes", sum(map(len, attributes.values())))
        if len(self._open) > _MOST_DEPTH:
            raise UnreadableError(f"nests elements more than {_MOST_DEPTH:,} levels deep; ungroup them first")
        parent, prefixes = self._open[-1]
        for key, value in attributes.items():
            if key == "xmlns" or key.startswith("xmlns:"):
                is_svg = value.strip() == _SVG_NAMESPACE and len(prefixes) < _MOST_PREFIXES
                prefixes = prefixes | {key[6:]} if is_svg else prefixes - {key[6:]}
        prefix, _, local = name.rpartition(":")
        element = Element(local if prefix in prefixes else "", attributes, parent)
        parent.children.append(element)
        self._open.append((element, prefixes))

    def end(self, name: str) -> None:
        self._open.pop()

    def characters(self, text: str) -> None:
        element, _ = self._open[-1]
        if element.tag == "style":
            element.text += text
