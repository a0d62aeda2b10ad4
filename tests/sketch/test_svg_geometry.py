"""Geometry and visibility of SVG shapes, compared with Chromium for a table of elements, transforms and units."""

import itertools
import json
from typing import Any

import numpy as np

from sgloc.sketch.svg.limits import Limits, UnreadableError
from sgloc.sketch.svg.reader import read_svg
from sgloc.sketch.svg.scene import read_scene
from tests.browser import browser  # noqa: F401
from tests.pens import distances

ELEMENTS = {
    "path": '<path d="M10 20 L60 25 L40 70" {}/>',
    "curves": '<path d="m10,20c5-15 30-15 40 0s10 30-10 35q-20 5-15-10t-10-10a12 7 30 10-9 8z" {}/>',
    "arcs": '<path d="M20 50A30 20 0 0 1 70 50A10 25-20 1 0 60 20h-9.5v-4H30" {}/>',
    "pen lifts": '<path d="M10 10h30M10 30h30zl20 20m5 5 9 9" {}/>',
    "line": '<line x1="15" y1="20" x2="70" y2="55" {}/>',
    "polyline": '<polyline points="10,10 60 20,30,70" {}/>',
    "polygon": '<polygon points="10,10 60,20 30,70" {}/>',
    "rect": '<rect x="20" y="15" width="40" height="25" {}/>',
    "round rect": '<rect x="20" y="15" width="40" height="25" rx="8" ry="40" {}/>',
    "half round rect": '<rect x="20" y="15" width="40" height="25" ry="6" {}/>',
    "circle": '<circle cx="45" cy="40" r="20" {}/>',
    "ellipse": '<ellipse cx="45" cy="40" rx="30" ry="12" {}/>',
}
TRANSFORMS = {
    "none": "",
    "translate": 'transform="translate(12 -7)"',
    "scale": 'transform="scale(1.5)"',
    "uneven scale": 'transform="scale(1.5,.5)"',
    "rotate": 'transform="rotate(30)"',
    "rotate about": 'transform="rotate(-50 45 40)"',
    "skewX": 'transform="skewX(25)"',
    "skewY": 'transform="skewY(-15)"',
    "mirror": 'transform="matrix(-1 0 0 1 90 0)"',
    "matrix": 'transform="matrix(.9,.3-.4,1.1 5e0 -.5e1)"',
    "list": 'transform=" translate(5) , rotate(10)scale(1 2)\n skewX(5) "',
    "style": 'style="transform: translate(4px, 3mm) rotate(.1turn) scale(1.2)"',
    "style over attribute": 'transform="scale(9)" style="transform:skew(10deg, 5deg)"',
    "style without units": 'transform="translate(5 5)" style="transform: rotate(30)"',
    "broken": 'transform="rotate(30) nonsense(4)"',
    "origin": 'transform="rotate(40)" transform-origin="45 40"',
    "origin of the view": 'style="transform:rotate(40deg);transform-origin:center"',
    "origin of the shape": 'style="transform:scale(.5) rotate(40deg);transform-origin:100% top;transform-box:fill-box"',
}
PLACES = {
    "alone": "{}",
    "in groups": '<g transform="rotate(20 50 50)"><g transform="scale(.8 1.1)">{}</g></g>',
    "in a link": '<a transform="skewX(10)"><switch><g systemLanguage="xx"/>{}</switch></a>',
    "in an svg": '<svg x="10" y="5" width="80" height="40" viewBox="5 5 50 50">{}</svg>',
    "in a stretched svg": '<svg width="50%" height="50" viewBox="0 0 90 50" preserveAspectRatio="none">{}</svg>',
    "in a sliced svg": (
        '<svg y="9" width="80" height="40" viewBox="0 0 90 90" preserveAspectRatio="xMinYMax slice">{}</svg>'
    ),
}
# The browser reports the geometry of a use element, but not of the copies that it draws.
COPIES = {
    "copy": '<defs><g id="{id}">{plain}</g></defs><use href="#{id}" {it}/>',
    "moved copy": (
        '<g transform="rotate(20)"><use xlink:href="#{id}" x="7" y="-4" {it}/></g><defs><g id="{id}">{plain}</g></defs>'
    ),
    "copy of a copy": (
        '<defs><g id="{id}">{plain}</g><use id="{id}b" href="#{id}" x="3"/></defs><use href="#{id}b" y="5" {it}/>'
    ),
    "symbol": (
        '<symbol id="{id}" viewBox="0 0 90 90" overflow="visible">{plain}</symbol>'
        '<use href="#{id}" x="5" width="60" height="30" {it}/>'
    ),
    "symbol without a size": (
        '<symbol id="{id}" viewBox="0 0 90 45" overflow="visible">{plain}</symbol><use href="#{id}" {it}/>'
    ),
}
ROOTS = {
    "pixels": 'width="200" height="120" viewBox="0 0 100 90"',
    "no view box": 'width="200px" height="120px"',
    "millimetres": 'width="50mm" height="1.5in" viewBox="-10 -10 100 90"',
    "points": 'width="90pt" height="9pc" viewBox="0 0 100 90" preserveAspectRatio="xMaxYMin"',
    "centimetres": 'width="5cm" height="200Q" viewBox="0 0 100 90" preserveAspectRatio="none"',
    "em": 'width="9em" height="9em" viewBox="0 0 100 90"',
    "height alone": 'width="auto" height="120" viewBox="0 0 100 90"',
    "slice": 'width="200" height="120" viewBox="5 5 100 90" preserveAspectRatio="xMidYMax slice"',
}
# The page determines the size of these roots, so coordinates are compared inside the view box.
ROOTS_WITHOUT_SIZE = {
    "none": 'viewBox="-10 -20 100 90"',
    "percent": 'width="100%" height="50%" viewBox="-10 -20 100 90"',
    "auto": 'width="100%" height="auto" viewBox="0 0 100 90"',
    "nothing": "",
}
UNITS = {
    "none": "7",
    "px": "7px",
    "mm": "7mm",
    "cm": ".7cm",
    "in": ".3in",
    "pt": "7pt",
    "pc": "1pc",
    "em": "1.5em",
    "rem": "1.5rem",
    "percent": "20%",
    "exponent": "7e-1",
    "auto": "auto",
}
SHAPES_OF_UNITS = {
    "rect": '<rect x="{0}" y="3" width="50" height="{0}" {1}/>',
    "round rect": '<rect x="3" y="{0}" width="70" height="80" rx="{0}" {1}/>',
    "circle": '<circle cx="{0}" cy="40" r="{0}" {1}/>',
    "ellipse": '<ellipse cx="{0}" cy="{0}" rx="30" ry="{0}" {1}/>',
    "line": '<line x1="{0}" y1="5" x2="70" y2="{0}" {1}/>',
    "nested svg": (
        '<svg x="{0}" width="{0}" height="60" viewBox="0 0 20 20"><rect x="4" y="2" width="9" height="7" {1}/></svg>'
    ),
    "css": '<rect style="x:{0};y:3px;width:50px;height:40px;rx:{0}" {1}/>',
}
IT = "data-it='1'"

MEASURE = """
texts => {
  const page = document.createElement('div');
  page.style.fontSize = '16px';
  document.body.append(page);
  page.innerHTML = texts.map(text => `<div style="position:absolute;top:0;left:0">${text}</div>`).join('');
  const numbers = m => [m.a, m.b, m.c, m.d, m.e, m.f];
  return [...page.children].map(cell => {
    const root = cell.firstElementChild, it = cell.querySelector('[data-it]');
    const box = root.getBoundingClientRect(), own = it.getBBox();
    const screen = it.getScreenCTM();
    const found = {
      pixels: numbers(new DOMMatrix([1, 0, 0, 1, -box.left, -box.top]).multiply(screen)),
      user: numbers(DOMMatrix.fromMatrix(root.getScreenCTM()).inverse().multiply(screen)),
      box: [own.x, own.y, own.width, own.height], points: [], length: null,
    };
    if (it.getTotalLength) found.length = it.getTotalLength();
    if (found.length) {
      for (let i = 0; i <= 24; i++) {
        const point = it.getPointAtLength(found.length * i / 24);
        found.points.push([point.x, point.y]);
      }
    }
    return found;
  });
}
"""


def page(content: str, root: str = ROOTS["pixels"]) -> str:
    start = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {root}'
    return f'{start} fill="none" stroke="black">{content}</svg>'


def cells() -> dict[str, tuple[str, str]]:
    """Return each SVG by description, with the coordinates to compare: "pixels" if its size is known, else "user"."""
    found: dict[str, tuple[str, str]] = {}
    for (shape, element), (how, transform) in itertools.product(ELEMENTS.items(), TRANSFORMS.items()):
        drawn = element.format(f"{transform} {IT}")
        for where, place in PLACES.items():
            found[f"{shape}, {how}, {where}"] = (page(place.format(drawn)), "pixels")
        if "shape" not in how:
            for where, copy in COPIES.items():
                content = copy.format(id=f"i{len(found)}", plain=element.format(""), it=f"{transform} {IT}")
                found[f"{shape}, {how}, {where}"] = (page(content), "pixels")
    for (shape, element), (how, root) in itertools.product(ELEMENTS.items(), (ROOTS | ROOTS_WITHOUT_SIZE).items()):
        drawn = element.format(f"{TRANSFORMS['rotate about']} {IT}")
        found[f"{shape} on a page of {how}"] = (page(drawn, root), "pixels" if how in ROOTS else "user")
    for (shape, element), (how, length) in itertools.product(SHAPES_OF_UNITS.items(), UNITS.items()):
        if (shape, how) == ("ellipse", "auto"):
            # Chromium: 0 for "auto", the other radius if it is missing. In the standard the two are the same.
            continue
        drawn = element.format(length, f"{TRANSFORMS['skewX']} {IT}")
        found[f"{shape} of {how}"] = (page(f'<g font-size="10">{drawn}</g>'), "pixels")
    return found


def read(text: str) -> list[Any]:
    try:
        return read_svg(text.encode())[0]
    except UnreadableError:
        return []


def compare(strokes: list[Any], found: dict[str, Any], measure: str) -> str:
    """Return the difference from the browser's geometry, or "" if there is none."""
    a, b, c, d, e, f = found[measure]
    linear, shift = np.array([[a, c], [b, d]]), np.array([e, f])
    width, height = found["box"][2:]
    if not strokes:
        return "" if min(width, height) == 0 else "is missing"
    if abs(np.linalg.det(linear)) < 1e-9:
        return "has no size"
    # Compare in the element's own coordinates, so that one tolerance fits all.
    local = [(stroke - shift) @ np.linalg.inv(linear).T for stroke in strokes]
    points = np.concatenate(local)
    tolerance = 2e-3 * max(width, height)
    box = np.array([*points.min(0), *np.ptp(points, axis=0)])
    if np.abs(box - found["box"]).max() > tolerance:
        return f"has the box {box.round(3).tolist()}, not {np.round(found['box'], 3).tolist()}"
    if found["length"] is None:
        return ""
    expected = np.array(found["points"])
    if np.abs(expected[0] - local[0][0]).max() > tolerance:
        return f"starts at {local[0][0]}, not at {expected[0]}"
    # Compare each point with the nearest of the runs between pen lifts.
    off = np.min([distances(expected, stroke) for stroke in local], axis=0).max()
    if off > tolerance:
        return f"is {off} off"
    length = sum(np.hypot(*np.diff(stroke, axis=0).T).sum() for stroke in local)
    # The tolerance is this large because the browser's own lengths of small ellipses are off by as much.
    return (
        ""
        if abs(length - found["length"]) < 1e-2 * found["length"] + 0.5
        else f"is {length} long, not {found['length']}"
    )


def test_every_shape_is_where_chromium_has_it(browser: Any) -> None:  # noqa: F811
    table = cells()
    assert len(table) > 2000
    tab = browser.new_page(viewport={"width": 800, "height": 600})
    found = tab.evaluate(MEASURE, [text for text, _ in table.values()])
    tab.close()
    wrong = {
        name: difference
        for (name, (text, measure)), one in zip(table.items(), found, strict=True)
        if (difference := compare(read(text), one, measure))
    }
    assert not wrong, json.dumps(wrong, indent=1)[:5000]


# The content of a root element whose shapes have a black stroke and no fill.
SEEN = {
    "stroke": "{}",
    "display none": '<g display="none">{}</g>',
    "display none in a style": '<g style="display:none">{}</g>',
    "display none overridden": '<g display="none"><g display="inline">{}</g></g>',
    "hidden": '<g visibility="hidden">{}</g>',
    "collapsed": '<g visibility="collapse">{}</g>',
    "hidden but shown again": '<g visibility="hidden"><g style="visibility:visible">{}</g></g>',
    "opacity 0": '<g opacity="0"><g opacity="1">{}</g></g>',
    "opacity 0 percent": '<g opacity="0%">{}</g>',
    "opacity below 0": '<g opacity="-3">{}</g>',
    "stroke opacity 0": '<g stroke-opacity="0">{}</g>',
    "stroke opacity restored": '<g stroke-opacity="0"><g stroke-opacity=".5">{}</g></g>',
    "no stroke": '<g stroke="none">{}</g>',
    "no stroke in a style": '<g style="stroke:none">{}</g>',
    "attribute against style": '<g stroke="none" style="stroke:red">{}</g>',
    "transparent": '<g stroke="transparent">{}</g>',
    "no alpha": '<g stroke="rgba(0,0,0,0)">{}</g>',
    "new alpha": '<g stroke="rgb(0 0 0 / 0%)">{}</g>',
    "hexadecimal alpha": '<g stroke="#12345600">{}</g>',
    "short hexadecimal alpha": '<g stroke="#1230">{}</g>',
    "some alpha": '<g stroke="hsla(9,90%,50%,0.5)">{}</g>',
    "current colour": '<g stroke="currentColor">{}</g>',
    "current colour that is transparent": '<g color="transparent" stroke="currentColor">{}</g>',
    "missing gradient": '<g stroke="url(#nothing)">{}</g>',
    "missing gradient with another paint": '<g stroke="url(#nothing) blue">{}</g>',
    "gradient": '<linearGradient id="a"><stop stop-color="red"/></linearGradient><g stroke="url(#a)">{}</g>',
    "thin": '<g stroke-width="0">{}</g>',
    "thin in a style": '<g style="stroke-width:0px">{}</g>',
    "negative width": '<g stroke-width="-1">{}</g>',
    "width in em": '<g font-size="0" stroke-width="1em">{}</g>',
    "defs": "<defs>{}</defs>",
    "mask": '<mask id="a">{}</mask>',
    "clip path": '<clipPath id="a">{}</clipPath>',
    "marker": '<marker id="a">{}</marker>',
    "pattern": '<pattern id="a" width="9" height="9">{}</pattern>',
    "symbol": '<symbol id="a">{}</symbol>',
    "drawn symbol": '<symbol id="a">{}</symbol><use href="#a"/>',
    "defs that are drawn": '<defs><g id="a">{}</g></defs><use href="#a"/>',
    "hidden copy": '<defs><g id="a">{}</g></defs><use href="#a" visibility="hidden"/>',
    "copy that strokes nothing": '<defs><g id="a">{}</g></defs><use href="#a" style="stroke:none"/>',
    "copy of what is not there": '<defs><g id="a">{}</g></defs><use href="#b"/>',
    "second in a switch": "<switch><g/><g>{}</g></switch>",
    "other language": '<switch><g systemLanguage="xx">{}</g></switch>',
    "foreign element": '<x:g xmlns:x="urn:x">{}</x:g>',
    "unknown element": "<blob>{}</blob>",
    "title": "<title>{}</title>",
    "small svg": '<svg width="0">{}</svg>',
    "class": '<style>.a {{ stroke: none }}</style><g class="b a">{}</g>',
    "id before class": '<style>#i {{ stroke: red }} .a {{ stroke: none }}</style><g id="i" class="a">{}</g>',
    "later rule": '<style>.a{{stroke:none}}.b{{stroke:red}}</style><g class="a b">{}</g>',
    "important": '<style>.a{{stroke:none!important}}</style><g class="a" style="stroke:red">{}</g>',
    "descendants": "<style>g g.a, rect {{ stroke: none }}</style><g><a><g class='a'>{}</g></a></g>",
    "children": "<style>svg > g > g {{ stroke: none }}</style><g><a><g>{}</g></a></g>",
    "every element": "<style>* {{ visibility: hidden }}</style>{}",
    "element and class": "<style>g.a {{ stroke: none }}</style><g class='a'>{}</g>",
    "comment": "<style>/* g {{ stroke: red }} */ g {{ /* ; */ stroke: none }}</style><g>{}</g>",
    "character data": "<style><![CDATA[ g {{ stroke: none }} ]]></style><g>{}</g>",
    "print": "<style>@media print {{ g {{ stroke: none }} }}</style><g>{}</g>",
    "screen": "<style>@media screen {{ g {{ stroke: none }} }}</style><g>{}</g>",
    "import": "<style>@import url(a.css); g {{ stroke: none }}</style><g>{}</g>",
    "font": "<style>@font-face {{ src: url(data:x;base64,AA) }} g {{ stroke: none }}</style><g>{}</g>",
    "nothing said": '<g stroke="none"><g stroke="" fill="">{}</g></g>',
    "unset": '<g stroke="none"><g style="stroke:unset">{}</g></g>',
    "inherit": '<g stroke="none"><g style="stroke:inherit">{}</g></g>',
    "initial": '<g stroke="red"><g style="stroke:initial">{}</g></g>',
    "fill": '<g fill="red" stroke="none">{}</g>',
    "fill by default": '<g style="fill:initial" stroke="none">{}</g>',
    "fill opacity 0": '<g fill="red" fill-opacity="0" stroke="none">{}</g>',
}
SEEN_SHAPES = {
    "rect": '<rect x="20" y="15" width="40" height="25"/>',
    "path": '<path d="M10 20L60 25 40 70z"/>',
    "line": '<line x1="10" y1="20" x2="60" y2="60"/>',
}
SEEN_ALONE = {
    "bare move": '<path d="M10 20"/>',
    "bare moves": '<path d="M10 20m3 3"/>',
    "dot": '<path d="M10 20z"/>',
    "round dot": '<path d="M10 20z" stroke-linecap="round"/>',
    "square dot": '<path d="M10 20h0" stroke-linecap="square" stroke-width="3"/>',
    "dot of a line": '<line x1="5" y1="5" x2="5" y2="5" style="stroke-linecap:round"/>',
    "polyline of a point": '<polyline points="10 10" stroke-linecap="round"/>',
    "no data": '<path d=""/>',
    "none": '<path d="none"/>',
    "fault at once": '<path d="L10 10"/>',
    "fault later": '<path d="M10 10L20 20L30 x"/>',
    "flat rect": '<rect width="30" height="0"/>',
    "negative rect": '<rect width="30" height="-5"/>',
    "circle of nothing": '<circle cx="9" cy="9" r="0"/>',
    "ellipse of one radius": '<ellipse cx="30" cy="30" rx="9"/>',
    "ellipse without height": '<ellipse cx="30" cy="30" rx="9" ry="0"/>',
    "transform to nothing": '<rect width="30" height="20" transform="scale(0)"/>',
    "text": "<text y='20'/>",
}
INK = """
texts => Promise.all(texts.map(text => new Promise((resolve, reject) => {
  const image = new Image(100, 90);
  image.onload = () => {
    const canvas = new OffscreenCanvas(100, 90).getContext('2d', {willReadFrequently: true});
    canvas.drawImage(image, 0, 0, 100, 90);
    resolve(canvas.getImageData(0, 0, 100, 90).data.some(value => value > 0));
  };
  image.onerror = () => reject(new Error(text));
  image.src = 'data:image/svg+xml,' + encodeURIComponent(text);
})))
"""


def test_what_chromium_shows_is_seen(browser: Any) -> None:  # noqa: F811
    table = {
        f"{shape}, {how}": page(place.format(element))
        for (how, place), (shape, element) in itertools.product(SEEN.items(), SEEN_SHAPES.items())
    }
    table |= {how: page(element) for how, element in SEEN_ALONE.items()}
    tab = browser.new_page()
    shown = tab.evaluate(INK, list(table.values()))
    tab.close()
    assert 40 < sum(shown) < len(shown) - 40
    found = [bool(read_scene(text.encode(), Limits()).shapes) for text in table.values()]
    wrong = [name for name, expected, seen in zip(table, shown, found, strict=True) if expected != seen]
    # A line has no interior; a file with nothing but filled lines is read nevertheless.
    assert wrong == ["line, fill", "line, fill by default"]
