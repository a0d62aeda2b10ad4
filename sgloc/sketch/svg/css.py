"""What style sheets, style attributes and presentation attributes say of an element."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from sgloc.sketch.svg.measures import parse_transform
from sgloc.sketch.svg.tree import Element, UnreadableError

_MOST_RULES = 20_000
_DEEPEST_MEDIA = 5
_COMMENT = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
_NAME = r"-?[_a-zA-Z\u0080-\uffff](?:[-\w]|\\.)*"
_COMPOUND = re.compile(rf"(\*|{_NAME})?((?:[.#]{_NAME})*)$")
_PART = re.compile(rf"([.#])({_NAME})")
_COMBINATOR = re.compile(r"\s*>\s*|\s+")

Declarations = list[tuple[str, str, bool]]


class _Compound(NamedTuple):
    """What one element must be: of a tag (empty: any), an id (empty: any) and classes."""

    tag: str
    id: str
    classes: frozenset[str]

    def matches(self, element: Element) -> bool:
        return (
            self.tag in ("", element.tag)
            and self.id in ("", element.attributes.get("id"))
            and (not self.classes or self.classes <= set(element.attributes.get("class", "").split()))
        )


class _Rule(NamedTuple):
    """A selector's compounds, the combinators between them, its specificity, and what it declares."""

    compounds: list[_Compound]
    combinators: list[str]
    specificity: tuple[int, int, int]
    declarations: Declarations

    def matches(self, element: Element) -> bool:
        if not self.compounds[-1].matches(element):
            return False
        # Trying the nearest ancestor first is enough but for selectors that mix both combinators oddly.
        ancestor = element.parent
        for compound, combinator in zip(self.compounds[-2::-1], self.combinators[::-1], strict=True):
            while ancestor is not None and combinator == " " and not compound.matches(ancestor):
                ancestor = ancestor.parent
            if ancestor is None or not compound.matches(ancestor):
                return False
            ancestor = ancestor.parent
        return True


class Styles:
    """The style sheets of an SVG.

    Args:
        sheets: the content of its style elements.
        spend: called with the amount of work that is about to be done.
        take_text: called with each text of declarations that is about to be taken apart.
    """

    def __init__(self, sheets: Iterable[str], spend: Callable[[int], None], take_text: Callable[[str], None]) -> None:
        self._spend, self._take_text = spend, take_text
        self._rules: dict[str, list[_Rule]] = {}
        self._num_rules = 0
        self._known: dict[Element, dict[str, str]] = {}
        for sheet in sheets:
            self._parse(_COMMENT.sub(" ", sheet))

    def of(self, element: Element) -> dict[str, str]:
        """An element's attributes, overlaid by what CSS says of it; values are stripped."""
        known = self._known.get(element)
        if known is None:
            known = self._known[element] = self._cascade(element)
        return known

    def _cascade(self, element: Element) -> dict[str, str]:
        values = {name: value.strip() for name, value in element.attributes.items()}
        keys = ["", element.tag, f"#{element.attributes.get('id', '')}"]
        keys += [f".{name}" for name in dict.fromkeys(element.attributes.get("class", "").split())]
        found = [rule for key in keys for rule in self._rules.get(key, ())]
        self._spend(len(found))
        found = sorted((rule for rule in found if rule.matches(element)), key=lambda rule: rule.specificity)
        declared = [one for rule in found for one in rule.declarations]
        style = element.attributes.get("style", "")
        self._take_text(style)
        declared += parse_declarations(style)
        for is_important in (False, True):
            values.update((name, value) for name, value, important in declared if important is is_important)
        return values

    def _parse(self, text: str, depth: int = 0) -> None:
        position = 0
        while (brace := text.find("{", position)) >= 0:
            # Statements such as @import end in a semicolon.
            prelude = text[position:brace].rpartition(";")[2].strip()
            if prelude.startswith("@"):
                end = _block_end(text, brace)
                if prelude.startswith("@media") and "print" not in prelude and depth < _DEEPEST_MEDIA:
                    self._parse(text[brace + 1 : end], depth + 1)
            else:
                end = text.find("}", brace)
                end = len(text) if end < 0 else end
                self._add(prelude, text[brace + 1 : end])
            position = end + 1

    def _add(self, prelude: str, body: str) -> None:
        self._take_text(body)
        declarations = parse_declarations(body)
        for selector in prelude.split(",") if declarations else ():
            rule = _parse_selector(selector.strip(), declarations, self._num_rules)
            if rule is None:
                continue
            self._num_rules += 1
            if self._num_rules > _MOST_RULES:
                raise UnreadableError(f"has more than {_MOST_RULES:,} rules of style; save it anew as plain SVG")
            last = rule.compounds[-1]
            key = f"#{last.id}" if last.id else f".{min(last.classes)}" if last.classes else last.tag
            self._rules.setdefault(key, []).append(rule)


def _block_end(text: str, brace: int) -> int:
    """Where the block that a brace opens ends."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, brace):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    return len(text)


def _parse_selector(text: str, declarations: Declarations, number: int) -> _Rule | None:
    """The rule of a selector of tags, ids, classes, descendants and children; None of any other."""
    combinators = [">" if ">" in found else " " for found in _COMBINATOR.findall(text)]
    compounds = []
    for part in _COMBINATOR.split(text):
        compound = _COMPOUND.match(part)
        if compound is None or not part:
            return None
        parts = _PART.findall(compound[2])
        ids = [name for kind, name in parts if kind == "#"]
        tag = "" if compound[1] in (None, "*") else compound[1]
        classes = frozenset(name for kind, name in parts if kind == ".")
        compounds.append(_Compound(tag, ids[0] if ids else "", classes))
    weight = sum(100 * bool(one.id) + 10 * len(one.classes) + bool(one.tag) for one in compounds)
    return _Rule(compounds, combinators, (weight, number, 0), declarations)


def parse_declarations(text: str) -> Declarations:
    """The declarations of a style attribute or of a rule: name, value, and whether it is important."""
    found = []
    for part in _COMMENT.sub(" ", text).split(";") if text else ():
        name, colon, value = part.partition(":")
        name, value = name.strip().lower(), value.strip()
        head, _, tail = value.rpartition("!")
        plain = head.strip() if tail.strip().lower() == "important" else value
        # In CSS, unlike in an attribute, a transform without units is none.
        is_sound = name != "transform" or parse_transform(plain, is_css=True) is not None
        if colon and plain and is_sound:
            found.append((name, plain, plain != value))
    return found
