"""Strokes of SVG files in the style of common drawing programs, and the notes about what was left out."""

from typing import Any

import numpy as np
import pytest

from sgloc.sketch.svg.limits import UnreadableError
from sgloc.sketch.svg.reader import read_svg
from sgloc.sketch.svg.write import to_svg
from tests.pens import farthest, outline_of

SVG = '<svg xmlns="http://www.w3.org/2000/svg"'
MILLIMETRE = 96 / 25.4

INKSCAPE = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!-- Created with Inkscape (http://www.inkscape.org/) -->
<svg:svg width="100mm" height="80mm" viewBox="0 0 100 80" version="1.1" id="svg5" inkscape:version="1.3.2"
   sodipodi:docname="house.svg" xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape"
   xmlns:sodipodi="http://sodipodi.sourceforge.net/DTD/sodipodi-0.dtd" xmlns="http://www.w3.org/2000/svg"
   xmlns:svg="http://www.w3.org/2000/svg">
  <sodipodi:namedview id="namedview7" pagecolor="#ffffff" inkscape:document-units="mm" showgrid="false">
    <inkscape:grid type="xygrid" id="grid1" /></sodipodi:namedview>
  <defs id="defs2"><inkscape:path-effect effect="bspline" id="path-effect1" is_visible="true" />
    <marker id="Arrow1" orient="auto"><path d="M 0,0 5,-5 -12,0 Z" style="fill:#000000;stroke:#000000" /></marker>
  </defs>
  <g inkscape:label="Layer 1" inkscape:groupmode="layer" id="layer1" transform="translate(10,20)">
    <path style="fill:none;stroke:#000000;stroke-width:0.264583px;stroke-linecap:butt;stroke-opacity:1"
       d="M 0,30 V 10 H 40 V 30 Z" id="path1" sodipodi:nodetypes="ccccc" inkscape:connector-curvature="0" />
    <path style="fill:none;stroke:#000000;stroke-width:0.5;marker-end:url(#Arrow1)" id="path2"
       d="m 0,10 20,-15 20,15" />
    <rect style="fill:#aa8800;fill-opacity:0.5;stroke:#000000;stroke-width:0.5" id="rect1" width="8" height="12" x="16"
       y="18" transform="rotate(90,20,24)" />
  </g>
  <g inkscape:groupmode="layer" id="layer2" inkscape:label="Photo" style="display:none">
    <path style="fill:none;stroke:#ff0000" d="M 0,0 50,50" id="path3" /></g>
  <g inkscape:groupmode="layer" id="layer3" inkscape:label="Words"><text x="5" y="5"><tspan>House</tspan></text></g>
</svg:svg>"""

ILLUSTRATOR = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd" [
  <!ENTITY ns_svg "http://www.w3.org/2000/svg"> <!ENTITY ns_xlink "http://www.w3.org/1999/xlink">
  <!ENTITY ns_extend "http://ns.adobe.com/Extensibility/1.0/"> <!ENTITY ns_ai "http://ns.adobe.com/AdobeIllustrator/10.0/">
]>
<svg version="1.1" id="Layer_1" xmlns:x="&ns_extend;" xmlns:i="&ns_ai;" xmlns="&ns_svg;" xmlns:xlink="&ns_xlink;"
   x="0px" y="0px" viewBox="0 0 200 100" style="enable-background:new 0 0 200 100;" xml:space="preserve">
<style type="text/css">
	.st0{fill:#FFFFFF;}
	.st1{fill:none;stroke:#231F20;stroke-width:2;stroke-miterlimit:10;}
	.st2{clip-path:url(#SVGID_2_);}
	.st3{fill:none;}
</style>
<switch>
<foreignObject requiredExtensions="&ns_ai;" x="0" y="0" width="1" height="1"><i:pgfRef xlink:href="#a"/></foreignObject>
<g i:extraneous="self">
	<rect class="st0" width="200" height="100"/>
	<g><defs><rect id="SVGID_1_" width="200" height="100"/></defs>
		<clipPath id="SVGID_2_"><use xlink:href="#SVGID_1_" style="overflow:visible;"/></clipPath>
		<g class="st2"><path class="st1" d="M20,80c0-33.1,26.9-60,60-60s60,26.9,60,60"/></g></g>
	<line class="st1" x1="20" y1="80" x2="140" y2="80"/>
	<polyline class="st1 st9" points="150,20 170,40 150,60 "/>
	<path class="st3" d="M0,0h24v24H0V0z"/>
</g>
</switch>
</svg>"""

FIGMA = f"""{SVG} width="100" height="100" viewBox="0 0 100 100" fill="none" xmlns:xlink="http://www.w3.org/1999/xlink">
<rect width="100" height="100" fill="white"/>
<mask id="mask0_1_2" style="mask-type:alpha" maskUnits="userSpaceOnUse" x="0" y="0" width="100" height="100">
<rect width="100" height="100" fill="#D9D9D9"/></mask>
<g mask="url(#mask0_1_2)"><path d="M10 10L90 10" stroke="black" stroke-width="2" stroke-linecap="round"/>
<g clip-path="url(#clip0_1_2)"><circle cx="50" cy="50" r="19.5" stroke="black"/></g></g>
<rect x="10.5" y="79.5" width="79" height="10" rx="2" fill="#D9D9D9" stroke="black"/>
<path d="M20 20h20v20H20z" fill="url(#pattern0)"/>
<defs><pattern id="pattern0" patternContentUnits="objectBoundingBox" width="1" height="1">
<use xlink:href="#image0" transform="scale(0.01)"/></pattern><image id="image0" width="100" height="100"/>
<clipPath id="clip0_1_2"><rect width="40" height="40" fill="white" transform="translate(30 30)"/></clipPath></defs>
</svg>"""

SKETCH_RNN = f"""{SVG} baseProfile="full" height="200" version="1.1" width="200"
 xmlns:ev="http://www.w3.org/2001/xml-events" xmlns:xlink="http://www.w3.org/1999/xlink"><defs />
<rect fill="white" height="200" width="200" x="0" y="0" />
<path d="M25,25 m0.0,0.0 l10.0,0.0 0.0,20.0 l-10.0,0.0 m50,0 l5,5 l5.0,-5.0 m30,0 m9,9 " fill="none"
 stroke="black" stroke-width="6" /></svg>"""


def strokes_of(text: str) -> tuple[list[Any], list[str]]:
    return read_svg(text.encode())


def expect(found: list[Any], *expected: list[tuple[float, float]], scale: float = 1.0) -> None:
    assert len(found) == len(expected)
    for stroke, points in zip(found, expected, strict=True):
        np.testing.assert_allclose(stroke, np.array(points) * scale, atol=1e-6)


def test_inkscape() -> None:
    strokes, notes = strokes_of(INKSCAPE)
    expect(
        strokes,
        [(10, 50), (10, 30), (50, 30), (50, 50), (10, 50)],
        [(10, 30), (30, 15), (50, 30)],
        [(36, 40), (36, 48), (24, 48), (24, 40), (36, 40)],
        scale=MILLIMETRE,
    )
    assert notes == ["1 hidden shape, 1 set of arrowheads, 1 shape inside definitions, 1 text were left out"]


def test_illustrator() -> None:
    strokes, notes = strokes_of(ILLUSTRATOR)
    arc, *lines = strokes
    expect(lines, [(20, 80), (140, 80)], [(150, 20), (170, 40), (150, 60)])
    np.testing.assert_allclose(np.hypot(*(arc - [80, 80]).T), 60, atol=0.05)
    assert arc[0].tolist() == [20, 80]
    assert notes == ["1 hidden shape, 1 page background, 1 shape inside definitions were left out"]


def test_figma() -> None:
    strokes, notes = strokes_of(FIGMA)
    line, circle, rectangle = strokes
    assert line.tolist() == [[10, 10], [90, 10]]
    np.testing.assert_allclose(np.hypot(*(circle - 50).T), 19.5, atol=0.03)
    np.testing.assert_allclose([rectangle.min(0), rectangle.max(0)], [[10.5, 79.5], [89.5, 89.5]])
    assert notes == ["1 filled shape, 1 page background, 2 shapes inside definitions were left out"]


def test_sketch_rnn() -> None:
    strokes, notes = strokes_of(SKETCH_RNN)
    expect(strokes, [(25, 25), (35, 25), (35, 45), (25, 45)], [(75, 45), (80, 50), (85, 45)])
    assert notes == ["1 page background was left out"]


def rough(*lines: tuple[tuple[float, float], tuple[float, float]], seed: int) -> str:
    """Return path data of lines, each drawn twice, as rough.js draws them."""
    generator = np.random.default_rng(seed)
    parts = []
    for start, end in lines:
        for most in (2.0, 1.0):
            places = np.linspace(start, end, 4) + generator.uniform(-most, most, (4, 2))
            (x, y), *rest = places.round(4).tolist()
            parts.append(f"M{x} {y} C{', '.join(f'{px} {py}' for px, py in rest)}")
    return " ".join(parts)


def freehand(outline: Any) -> str:
    """Return path data of a filled outline as users of perfect-freehand write it: from midpoint to midpoint."""
    middles = (outline[:-1] + outline[1:]) / 2
    curves = " ".join(
        f"{x:.2f},{y:.2f} {mx:.2f},{my:.2f}" for (x, y), (mx, my) in zip(outline[1:-1], middles[1:], strict=True)
    )
    return f"M{middles[0, 0]:.2f},{middles[0, 1]:.2f} Q{curves} Z"


TIMES = np.linspace(0, 1, 80)
WAYS = [
    np.stack([40 + 100 * TIMES, 60 + 20 * np.sin(7 * TIMES)], axis=1),
    np.stack([90 + 40 * np.cos(6.6 * TIMES), 150 + 40 * np.sin(6.6 * TIMES)], axis=1),
]
PENS = [freehand(outline_of(way, 6 * (0.5 + 0.5 * np.sin(np.pi * TIMES.clip(0.1, 0.9))))) for way in WAYS]


def test_excalidraw() -> None:
    corners = [(0.0, 0.0), (150.0, 0.0), (150.0, 90.0), (0.0, 90.0)]
    sides = list(zip(corners, corners[1:] + corners[:1], strict=True))
    strokes, notes = strokes_of(
        f"""{SVG} version="1.1" viewBox="0 0 300 300" width="300" height="300"><!-- svg-source:excalidraw -->
<metadata></metadata><defs><style class="style-fonts">@font-face {{ font-family: Excalifont;
 src: url(data:font/woff2;base64,d09GMgABAAAAABV0) format("woff2"); }}</style></defs>
<rect x="0" y="0" width="300" height="300" fill="#ffffff"></rect>
<g stroke-linecap="round" transform="translate(20 30) rotate(0 75 45)"><path d="{rough(*sides, seed=1)}"
 stroke="#1e1e1e" stroke-width="2" fill="none"></path></g>
<g transform="translate(10 20) rotate(0 50 50)" stroke="none"><path fill="#1e1e1e" d="{PENS[0]}"></path></g>
<g transform="translate(10 20)"><text x="0" y="18" font-family="Excalifont, Segoe UI Emoji">Hi</text></g></svg>"""
    )
    assert len(strokes) == 5
    for stroke, side in zip(strokes, sides, strict=False):
        assert farthest(stroke - [20, 30], np.array(side)) < 4
    assert farthest(strokes[4], WAYS[0] + [10, 20]) < 2.5
    assert farthest(WAYS[0] + [10, 20], strokes[4]) < 2.5
    assert notes == [
        "1 brush stroke was replaced by its centre line",
        "1 page background, 4 second passes of hand-drawn lines, 1 text were left out",
    ]


def test_tldraw() -> None:
    strokes, notes = strokes_of(
        f"""{SVG} direction="ltr" width="200" height="200" viewBox="0 0 200 200" stroke-linecap="round"
 stroke-linejoin="round" style="background-color: transparent;"><defs/>
<g transform="matrix(1, 0, 0, 1, 3, 4)" opacity="1"><path d="{PENS[0]}" fill="#1d1d1d" stroke-width="0"/></g>
<g transform="matrix(0, 1, -1, 0, 200, 0)" opacity="1"><path d="{PENS[1]}" fill="#1d1d1d" stroke-width="0"/></g>
<g transform="matrix(1, 0, 0, 1, 0, 0)"><path d="M10,10L60,60" stroke="#1d1d1d" stroke-width="3.5" fill="none"/></g>
</svg>"""
    )
    ways = [WAYS[0] + [3, 4], np.stack([200 - WAYS[1][:, 1], WAYS[1][:, 0]], axis=1)]
    assert len(strokes) == 3
    for stroke, way in zip(strokes, ways, strict=False):
        assert farthest(stroke, way) < 2.5
        assert farthest(way, stroke) < 2.5
        assert np.hypot(*(stroke[0] - way[0])) < 4
    assert strokes[2].tolist() == [[10, 10], [60, 60]]
    assert notes == ["2 brush strokes were replaced by their centre lines"]


def test_lines_side_by_side_are_strokes_each() -> None:
    straight = f'{SVG}><path d="M0 0L100 0M0 2L100 2" stroke="red"/></svg>'
    bent = f'{SVG}><path d="M0 0C9 30 90 30 100 0M0 0C9 60 90 60 100 0" stroke="red"/></svg>'
    hatched = (
        f'{SVG}><path d="{"".join(f"M0 {y}C9 {y + 9} 90 {y - 9} 100 {y}" for y in range(6))}" stroke="red"/></svg>'
    )
    for text, count in ((straight, 2), (bent, 2), (hatched, 6)):
        strokes, notes = strokes_of(text)
        assert len(strokes) == count
        assert notes == []


def test_a_pencil_drawing_of_many_curves_is_read() -> None:
    """The limit applies to the curves in the file, not to the points that flattening them produces."""
    curves = "c1 1 1 2 0 3 c-9 9-9 0 0-3 s60 70-30 0" * 100
    strokes, _ = strokes_of(f'{SVG}><path d="{"".join(f"M{x} 0{curves}" for x in range(60))}" stroke="red"/></svg>')
    assert len(strokes) == 60
    assert sum(map(len, strokes)) > 100_000
    with pytest.raises(UnreadableError, match="more than 20,000 points and curves"):
        strokes_of(f'{SVG}><path d="{"".join(f"M{x} 0{curves}" for x in range(70))}" stroke="red"/></svg>')


def test_curves_have_as_many_points_as_they_need() -> None:
    strokes, _ = strokes_of(
        f'{SVG} stroke="red"><circle r="500"/><circle r="5"/><path d="M0 0C10 0 20 0 1000 0"/></svg>'
    )
    large, small, line = strokes
    assert np.abs(np.hypot(*large.T) - 500).max() < 0.3
    assert 40 < len(large) < 100
    assert len(small) < 20
    np.testing.assert_array_equal(line[:, 1], 0)


def test_a_large_font_is_no_obstacle() -> None:
    font = f"@font-face {{ font-family: a; src: url(data:font/woff2;base64,{'A' * 6_000_000}) }}"
    strokes, notes = strokes_of(f'{SVG}><style>{font} path {{ stroke: red }}</style><path d="M0 0h9"/></svg>')
    assert [stroke.tolist() for stroke in strokes] == [[[0, 0], [9, 0]]]
    assert notes == []


def test_our_own_output_holds_our_strokes() -> None:
    given = [np.array([[1.0, 3], [16, 3], [16, 16]]), np.array([[5.0, 5.0]]), np.array([[-2.0, 8], [4, 9.5]])]
    once, notes = strokes_of(to_svg(given))
    assert notes == ["1 page background was left out"]
    assert [len(stroke) for stroke in once] == [3, 2, 2]
    np.testing.assert_allclose(once[0], given[0], atol=1e-3)
    np.testing.assert_allclose(once[1][0], given[1][0], atol=1e-3)
    np.testing.assert_allclose(once[2], given[2], atol=1e-3)
    again, _ = strokes_of(to_svg(once))
    for stroke, before in zip(again, once, strict=True):
        np.testing.assert_array_equal(stroke, before)


def test_a_file_of_fills_keeps_their_outlines_and_says_so() -> None:
    page = '<path d="M0 0H90V90H0z" fill="white"/>'
    blobs = '<path d="M10 10h40v40z"/><path d="M20 60l9 9"/><circle cx="70" cy="70" r="9" fill="blue"/>'
    strokes, notes = strokes_of(f'{SVG} viewBox="0 0 90 90">{page}{blobs}</svg>')
    assert [len(stroke) for stroke in strokes[:2]] == [4, 2]
    assert len(strokes) == 3
    told = "the file has no lines, so the outlines of its filled shapes were used as strokes"
    assert notes == [told, "1 page background was left out"]
    strokes, notes = strokes_of(f'{SVG} viewBox="0 0 90 90">{page}{blobs}<path d="M0 0h9" stroke="red"/></svg>')
    assert [stroke.tolist() for stroke in strokes] == [[[0, 0], [9, 0]]]
    assert notes == ["3 filled shapes, 1 page background were left out"]
    # A page with nothing but one rectangle is a drawing of that rectangle.
    assert len(strokes_of(f'{SVG} viewBox="0 0 90 90">{page}</svg>')[0]) == 1


@pytest.mark.parametrize(
    ("content", "note"),
    [
        pytest.param("<text>a</text><text>b</text><image/>", "1 image, 2 texts were", id="texts and image"),
        pytest.param("<foreignObject><p/></foreignObject>", "1 foreign object was", id="foreign object"),
        pytest.param('<g display="none"><rect/><path/></g>', "2 hidden shapes were", id="hidden"),
        pytest.param('<use href="#none"/>', "1 copy of an element not in the file was", id="missing copy"),
        pytest.param('<use href="other.svg#a"/>', "1 copy of an element not in the file was", id="other file"),
        pytest.param('<path d="M0 0h9 ?"/>', "1 end of a malformed path was", id="broken path"),
        pytest.param('<g transform="turn(3)"/>', "1 transform with invalid syntax was", id="broken transform"),
        pytest.param("<defs><path/></defs><symbol><rect/></symbol>", "2 shapes inside definitions were", id="defs"),
    ],
)
def test_what_is_left_out_is_told(content: str, note: str) -> None:
    strokes, notes = strokes_of(f'{SVG} fill="none" stroke="red"><path d="M0 0h9"/>{content}</svg>')
    assert strokes[0].tolist() == [[0, 0], [9, 0]]
    assert notes == [f"{note} left out"]


@pytest.mark.parametrize(
    "size",
    ['width="1em" height="1em"', 'width="100%" height="auto"', "", 'width="100vw"', 'height="50%"', 'width="none"'],
    ids=["em", "percent and auto", "nothing", "view", "percent", "word"],
)
def test_the_view_box_is_size_enough(size: str) -> None:
    (stroke,), _ = strokes_of(f'{SVG} {size} viewBox="3 4 32 32" stroke="red"><path d="M5 6h9v20"/></svg>')
    corner, end = stroke[0], stroke[-1]
    np.testing.assert_allclose((stroke[1] - corner) / (end - corner)[1], [9 / 20, 0])


@pytest.mark.parametrize(
    "content",
    ['<g id="a"><use href="#a"/></g>', '<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>'],
    ids=["itself", "each other"],
)
def test_a_copy_inside_itself_is_named(content: str) -> None:
    with pytest.raises(
        UnreadableError, match=r"has a use element that copies '#[ab]' into itself; remove that use element"
    ):
        strokes_of(f'{SVG} stroke="red"><path d="M0 0h9"/>{content}</svg>')


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_any_encoding(encoding: str) -> None:
    declared = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
    text = f'{declared}{SVG} stroke="red"><title>é</title><path id="ä" d="M0 0h9"/></svg>'
    assert len(read_svg(text.encode(encoding))[0]) == 1
