"""Small SVG files that expand enormously end in a one-sentence error, within seconds and 500 MB."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE

START = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" stroke="black" fill="none">'
FILLED = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'


def copies(depth: int, width: int, attributes: str = "", shape: str = '<path d="M0 0L5 5"/>') -> str:
    """Return nested groups in which each level consists of copies of the level below."""
    groups = [
        f'<g id="a{level + 1}">' + f'<use href="#a{level}" {attributes}/>' * width + "</g>" for level in range(depth)
    ]
    return f'{START}<defs><g id="a0">{shape}</g>{"".join(groups)}</defs><use href="#a{depth}"/></svg>'


def entities(depth: int) -> str:
    """Return a "billion laughs" document of nested entities."""
    declared = "".join(f'<!ENTITY e{level + 1} "{f"&e{level};" * 10}">' for level in range(depth))
    return f'<!DOCTYPE svg [<!ENTITY e0 "xxxxxxxxxx">{declared}]><svg><title>&e{depth};</title></svg>'


def one_entity(value: str, content: str) -> str:
    return f'<!DOCTYPE svg [<!ENTITY e "{value}">]><svg {content}</svg>'


HOSTILE = {
    "copy of itself": f'{START}<g id="a"><use href="#a"/></g></svg>',
    "two copies of each other": f'{START}<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g></svg>',
    "copy of the root": START.replace("<svg", '<svg id="r"') + '<use href="#r"/></svg>',
    "copies of copies": copies(10, 10),
    "styled copies of copies": copies(10, 10, 'transform="rotate(3)" style="opacity:.5;stroke-width:2em"'),
    "copies of nothing": copies(10, 10, shape=""),
    "many copies": copies(1, 60_000),
    "deep groups": START + "<g>" * 3000 + "</g>" * 3000 + "</svg>",
    "deeper groups": START + "<g>" * 100_000 + "</g>" * 100_000 + "</svg>",
    "many elements": START + "<g/>" * 2_000_000 + "</svg>",
    "many styled elements": START + '<g stroke="red" style="opacity:.9"/>' * 60_000 + "</svg>",
    "many shapes": START + '<circle r="5" fill="red" stroke="none"/>' * 12_000 + "</svg>",
    "billion laughs": entities(12),
    "long entity": one_entity("x" * 100_000, f"><title>{'&e;' * 100_000}</title>"),
    "long entity in an attribute": one_entity("x" * 100_000, f'a="{"&e;" * 100_000}">'),
    "entity of elements": one_entity("<g/>" * 10_000, f">{'&e;' * 900}"),
    "default attributes": (
        "<!DOCTYPE svg [<!ATTLIST g "
        + " ".join(f'a{number} CDATA "x"' for number in range(1000))
        + f">]><svg>{'<g/>' * 100_000}</svg>"
    ),
    "long path": f'{START}<path d="M0 0L{"12.5 7 " * 800_000}"/></svg>',
    "path of short numbers": f'{START}<path d="M0 0L{"1 1 " * 1_200_000}"/></svg>',
    "path of arcs": f'{START}<path d="M0 0a{"1 " * 2_400_000}"/></svg>',
    "long number": f'{START}<path d="M0 0L{"1" * 3_000_000} 5"/></svg>',
    "long number in an arc": f'{START}<path d="M0 0a{"1" * 3_000_000}"/></svg>',
    "curves that go far": f'{START}<path d="M0 0C{"1e8 1e8 -1e8 1e8 0 0 " * 19_000}"/></svg>',
    "infinite": f'{START}<path d="M0 0L1e999 5"/></svg>',
    "not a number": f'{START}<path d="M0 0L NaN 5"/></svg>',
    "infinite radius": f'{START}<circle r="1e999"/></svg>',
    "infinite matrix": f'{START}<path d="M0 0L1 5" transform="scale(1e308)scale(1e308)"/></svg>',
    "brush strokes": FILLED + '<path d="M0 0c3 1 6 3 9 0 2 1 3 1 4 0v.2c-1 1-2 1-4 0-3 3-6 1-9 0z"/>' * 9000 + "</svg>",
    "many outlines of one shape": f'{FILLED}<path d="{"M0 0l9 1v1z" * 24_000}"/></svg>',
    "long transforms": START + f'<g transform="{"rotate(1)" * 200}"/>' * 9000 + "</svg>",
    "transform of spaces": f'{START}<g transform="{" " * 9_000_000}!"/></svg>',
    "many rules": f"{START}<style>{'g{fill:red}' * 300_000}</style></svg>",
    "rules for all": f"{START}<style>{'*{fill:red}' * 19_000}</style>{'<g/>' * 10_000}</svg>",
    "nested media": f"{START}<style>{'@media{' * 1_000_000}</style></svg>",
    "style of spaces": f'{START}<g style="fill:{" " * 9_000_000}x"/></svg>',
    "long style": f'{START}<g style="{"a:b;" * 1_500_000}"/></svg>',
    "many namespaces": (
        START + "<g " + " ".join(f'xmlns:a{n}="http://www.w3.org/2000/svg"' for n in range(90_000)) + "/></svg>"
    ),
    "unknown encoding": '<?xml version="1.0" encoding="utf-7"?><svg/>',
    "not XML": "\0" * 1000,
}

RUN = """
import json, resource, signal, sys
resource.setrlimit(resource.RLIMIT_AS, (500 * 10**6, 500 * 10**6))
from sgloc.cli import main

def stop(*_): raise RuntimeError("takes more than 5 seconds")
signal.signal(signal.SIGPROF, stop)
ended = {}
for path in sys.argv[1:]:
    # Limit processor time, which does not depend on the load of the machine.
    signal.setitimer(signal.ITIMER_PROF, 5)
    try:
        main(["reorganize", path, "--checkpoint", "nowhere", "--out", "nowhere"])
        ended[path] = "read"
    except SystemExit as error:
        ended[path] = error.code
    except BaseException as error:
        ended[path] = repr(error)
    signal.setitimer(signal.ITIMER_PROF, 0)
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, str]]:
    """Exit code and message of the command for each file; all in one process, because starting it is the slow part."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = [folder / f"{number}.svg" for number in range(len(HOSTILE))]
    for path, text in zip(paths, HOSTILE.values(), strict=True):
        path.write_text(text)
    bomb = folder / "bomb.svgz"
    bomb.write_bytes(gzip.compress(bytes(200 * 2**20), 9, mtime=0))
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, paths), str(bomb)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd()), "PATH": ""},
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout)
    said = dict(line.removeprefix("sgloc reorganize: ").split(" ", 1) for line in done.stderr.splitlines() if line)
    assert set(said) == set(codes), codes
    names = [*HOSTILE, "gzip bomb"]
    return {name: (codes[path], said[path]) for name, path in zip(names, codes, strict=True)}


@pytest.mark.parametrize("name", [*HOSTILE, "gzip bomb"])
def test_a_hostile_file_ends_in_one_sentence(ended: dict[str, tuple[object, str]], name: str) -> None:
    code, sentence = ended[name]
    assert code == 2
    assert len(sentence) < 300
    assert sentence.startswith(
        ("has ", "is not a readable SVG", "nests", "draws more", "declares", "expands to", "contains no strokes")
    )
