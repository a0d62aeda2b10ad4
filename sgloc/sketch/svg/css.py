"""CSS cascade over style sheets, style attributes and presentation attributes."""

import functools
import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

from sgloc.sketch.svg.limits import Limits
from sgloc.sketch.svg.measures import parse_transform
from sgloc.sketch.svg.tree import Element

_COMMENT = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
_PRINT = re.compile(r"@media(?=[^{@]*print)[^{@]*+\{(?:[^{}]*+\{[^{}]*+\})*+[^{}]*+\}?")
_NAME = r"-?[_a-zA-Z\u0080-\uffff](?:[-\w]|\\.)*"
_COMPOUND = re.compile(rf"(?=.)(?:\*|{_NAME})?(?:[.#]{_NAME})*")
_SIMPLE = re.compile(rf"[.#]?{_NAME}")
_COMBINATOR = re.compile(r"\s*(>)\s*|\s+")

Declarations = list[tuple[str, str, bool]]


class _Rule(NamedTuple):
    """A style rule with one selector.

    Attributes:
        names: the names that the selector requires of the element, see `Element.names`.
        ancestors: the names that it requires of the element's ancestors, from the inside out, each with ">" if the
            ancestor must be the next one out.
        order: position in the cascade: specificity of the selector, then position in the style sheets.
        declarations: the declarations of the rule.
    """

    names: frozenset[str]
    ancestors: list[tuple[str | None, frozenset[str]]]
    order: tuple[int, int]
    declarations: Declarations

    def matches(self, element: Element) -> bool:
        if not self.names <= element.names:
            return False
        # Matching the nearest ancestor greedily is wrong only for odd selectors that mix both combinators.
        ancestor = element.parent
        for combinator, names in self.ancestors:
            while ancestor is not None and combinator is None and not names <= ancestor.names:
                ancestor = ancestor.parent
            if ancestor is None or not names <= ancestor.names:
                return False
            ancestor = ancestor.parent
        return True


class Styles:
    """The style sheets of an SVG.

    Args:
        sheets: the contents of the style elements.
        limits: the limits on the file.

    Attributes:
        of: maps an element to its attributes, overridden by its CSS declarations; values are stripped.
    """

    def __init__(self, sheets: Iterable[str], limits: Limits) -> None:
        self._limits = limits
        # Each rule is stored under its most specific name, which the fewest elements have.
        self._rules: dict[str, list[_Rule]] = {}
        self._numbers = itertools.count()
        self.of = functools.cache(self._cascade)
        for sheet in sheets:
            for block in _PRINT.sub(" ", _COMMENT.sub(" ", sheet)).split("}"):
                before, _, body = block.rpartition("{")
                # The start of an enclosing block such as @media may precede the selectors, and so may statements such
                # as @import, which end in a semicolon.
                self._add(before[max(before.rfind("{"), before.rfind(";")) + 1 :], body)

    def _cascade(self, element: Element) -> dict[str, str]:
        values = {name: value.strip() for name, value in element.attributes.items()}
        found = [rule for name in {"", *element.names} for rule in self._rules.get(name, ())]
        self._limits.count("element", len(found))
        matching = sorted((rule for rule in found if rule.matches(element)), key=lambda rule: rule.order)
        declared = [one for rule in matching for one in rule.declarations]
        declared += self._declarations(element.attributes.get("style", ""))
        for is_important in (False, True):
            values.update((name, value) for name, value, important in declared if important is is_important)
        return values

    def _add(self, selectors: str, body: str) -> None:
        """Add a rule for each selector.

        Only selectors of tags, ids, classes, descendants and children are supported; others are skipped.
        """
        # Skipped before the body is counted: a @font-face may hold megabytes.
        if selectors.lstrip().startswith("@"):
            return
        declarations = self._declarations(body)
        for selector in selectors.split(",") if declarations else ():
            # Compound selectors alternate with ">" or None, the combinators between them.
            parts = _COMBINATOR.split(selector.strip())
            if not all(map(_COMPOUND.fullmatch, parts[::2])):
                continue
            self._limits.count("rule")
            *outer, inner = compounds = [frozenset(_SIMPLE.findall(part)) for part in parts[::2]]
            order = (sum(map(_weight, itertools.chain(*compounds))), next(self._numbers))
            ancestors = list(zip(parts[-2::-2], reversed(outer), strict=True))
            key = max(inner, key=_weight, default="")
            self._rules.setdefault(key, []).append(_Rule(inner, ancestors, order, declarations))

    def _declarations(self, text: str) -> Declarations:
        """Parse the declarations of a style attribute or a rule: name, value, and whether it is important."""
        self._limits.count("character", len(text))
        found = []
        for part in _COMMENT.sub(" ", text).split(";") if text else ():
            name, _, value = part.partition(":")
            name, value = name.strip().lower(), value.strip()
            head, _, tail = value.rpartition("!")
            plain = head.strip() if tail.strip().lower() == "important" else value
            # In CSS, unlike in an attribute, a transform without units is invalid.
            is_sound = name != "transform" or parse_transform(plain, is_css=True) is not None
            if plain and is_sound:
                found.append((name, plain, plain != value))
        return found


def _weight(name: str) -> int:
    return {"#": 100, ".": 10}.get(name[0], 1)
