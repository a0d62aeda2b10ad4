"""Citations of METHOD and DESIGN, and links between pages, lead to what exists."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
CITING = ("sgloc", "launch", "benchmarks", "examples", "slurm", "configs", "docs", "tests", "README.md")
TEXTS = frozenset((".py", ".md", ".yaml", ".json", ".jinja", ".sh", ".txt", ".cpp"))
PAGES = [
    *(TOP / name for name in ("README.md", "shards/README.md", "configs/deepspeed/README.md")),
    *sorted((TOP / "docs").glob("*.md")),
    *sorted((TOP / "benchmarks").glob("*.md")),
]

# A citation may be continued on the next line, also of a comment. Of "METHOD 8's 70,000" the first number is cited.
_GAP = r"(?:\s|#)+"
_NUMBER = r"\d+(?:\.\d+)?(?![\d,.]*\d)"
_NUMBERS = rf"({_NUMBER}(?:(?:,|,?{_GAP}(?:and|or|to)){_GAP}{_NUMBER})*)"
CITATIONS = {
    "METHOD": re.compile(rf"\bMETHOD(?:\.md)?,?{_GAP}(?:sections?{_GAP})?{_NUMBERS}"),
    "DESIGN": re.compile(rf"\bDESIGN(?:\.md)?,?{_GAP}contracts?{_GAP}{_NUMBERS}"),
}
_FENCE = re.compile(r"^ *(`{3,})[^`\n]*\n.*?^ *\1`*$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(`+)(?!`)(?:(?!\n\s*\n).)*?(?<!`)\1(?!`)", re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) +(.+?)(?: +#+)?$", re.MULTILINE)
_LINK = re.compile(
    r"\]\(([^()\s]+)(?: \"[^\"]*\")?\)|^ *\[[^\]]+\]: +(\S+)|<[^>]+ (?:href|src)=\"([^\"]+)\"", re.MULTILINE
)
_ANCHOR = re.compile(r"<[^>]+ (?:id|name)=\"([^\"]+)\"")


def cited(source: str, page: str) -> list[str]:
    """The numbers of a page's sections that a text cites."""
    return [number for found in CITATIONS[page].finditer(source) for number in re.findall(r"\d+(?:\.\d+)?", found[1])]


def headings(page: str) -> list[tuple[int, str]]:
    """The level and text of each heading of a page."""
    return [(len(marks), text) for marks, text in _HEADING.findall(_FENCE.sub("", page))]


@functools.cache
def sections(page: str) -> frozenset[str]:
    """The numbers that METHOD's sections have, or DESIGN's contracts."""
    found, chapter = set(), ""
    for level, text in headings((TOP / "docs" / f"{page}.md").read_text()):
        chapter = text if level == 2 else chapter
        number = re.match(r"(\d+(?:\.\d+)?)\.? ", text)
        if number and (page == "METHOD" or chapter == "Contracts"):
            found.add(number[1])
    return frozenset(found)


def anchors(page: str) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings, and those that it sets itself."""
    found: set[str] = set()
    for _, text in headings(page):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        names = (f"{anchor}-{count}" if count else anchor for count in range(len(found) + 1))
        found.add(next(name for name in names if name not in found))
    return found | set(_ANCHOR.findall(page))


def links(page: str) -> list[str]:
    """The targets of a page's links and pictures that lie in this repository."""
    shown = _CODE.sub("code", _FENCE.sub("", page))
    targets = ["".join(groups) for groups in _LINK.findall(shown)]
    return [target for target in targets if not re.match(r"[a-z][a-z+.-]*:", target)]


def broken_links(path: Path) -> Iterator[str]:
    """The links of a page that lead nowhere."""
    page = path.read_text()
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and (target.suffix != ".md" or anchor not in anchors(target.read_text()))):
            yield link


def texts(name: str) -> list[Path]:
    """The texts of a folder, or the one of this name."""
    return [path for path in (TOP / name, *sorted((TOP / name).rglob("*"))) if path.suffix in TEXTS and path.is_file()]


@pytest.mark.parametrize("page", CITATIONS)
@pytest.mark.parametrize("name", CITING)
def test_what_is_cited_exists(name: str, page: str) -> None:
    missing = [
        f"{path.relative_to(TOP)} cites {page} {number}"
        for path in texts(name)
        for number in cited(path.read_text(), page)
        if number not in sections(page)
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: "-".join(path.relative_to(TOP).with_suffix("").parts))
def test_links_lead_to_files_and_headings(path: Path) -> None:
    assert not list(broken_links(path))


def test_sections_are_numbered_without_a_gap() -> None:
    assert sections("METHOD") >= {str(number) for number in range(1, 13)}
    assert sections("DESIGN") == {str(number) for number in range(1, 11)}


@pytest.mark.parametrize(
    ("source", "page", "numbers"),
    [
        ("METHOD 1, 2 and\n    # 5.2, 9 to 10", "METHOD", ["1", "2", "5.2", "9", "10"]),
        ("METHOD 8's 70,000; METHOD 3, of 2", "METHOD", ["8", "3"]),
        ("METHOD 5.1; METHOD 6.", "METHOD", ["5.1", "6"]),
        ("DESIGN\ncontracts 3 and 4, 1 of them", "DESIGN", ["3", "4", "1"]),
        ("DESIGN, rooms", "DESIGN", []),
    ],
    ids=["lists", "other-numbers", "stops", "contracts", "rooms"],
)
def test_citations_are_seen(source: str, page: str, numbers: list[str]) -> None:
    assert cited(source, page) == numbers


def test_anchors_are_github_s() -> None:
    page = "# A `b.c`, d-e: F_g\n```\n# none\n```\n## [Two](x.md)\n## Two\n## 5.1 Node embeddings\n"
    assert anchors(page) == {"a-bc-d-e-f_g", "two", "two-1", "51-node-embeddings"}


def test_broken_links_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Top\n[a](#top) [b](#none) [![c](none.png)](#top) [d](page.md#top)\n"
        "[e](other.md) [f](https://x.org/y) `[g](none)`\n```\n[h](none)\n```\n"
    )
    assert list(broken_links(page)) == ["#none", "none.png", "other.md"]
