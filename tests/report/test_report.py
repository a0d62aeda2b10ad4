"""`sgloc report`: the page's content, and its rendering in a browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgloc.cli import main
from sgloc.models.sketchgloc.config import Config, TrainConfig
from sgloc.report.latent import color_of, draw_map, principal_map
from tests.browser import browser  # noqa: F401
from tests.commands import Said
from tests.train.runs import make_config, train

TITLES = [
    "Training",
    "Reorganization",
    "Rec, Ret and distances",
    "Retrieval",
    "Map of codes",
    "Interpolation",
]


@pytest.fixture(scope="module")
def run_dir(picture_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated run with its report."""
    folder = tmp_path_factory.mktemp("report") / "a <run> & more"
    config: Config = make_config(picture_shards, folder, num_steps=24, validate_every=12)
    assert isinstance(config.train, TrainConfig)
    train(config, "auto")
    words = ["--checkpoint", str(folder), "--data", picture_shards, "--out", str(folder / "evaluated")]
    main(["evaluate", *words, "--resamples", "20", "--disturb", "0,0.1"])
    main(["report", str(folder)])
    return folder


class _Page(HTMLParser):
    """Collects the external resources of a page, and checks that it has no scripts and closes all its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href") and not (value or "").startswith("data:"):
                self.fetched.append(str(value))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(run_dir: Path) -> None:
    text = (run_dir / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert "url(" not in text
    assert re.findall(r"<h2>(.*?)</h2>", text) == TITLES
    assert "<title>SketchGloc: a &lt;run&gt; &amp; more</title>" in text


def test_it_says_what_was_measured(run_dir: Path) -> None:
    text = (run_dir / "report.html").read_text()
    results = json.loads((run_dir / "evaluated/results.json").read_text())
    for task in results["tasks"]:
        assert f"<td>{task['task']}</td><td>40</td><td>-</td><td>{100 * task['ret']['1']['value']:.1f} (" in text
        for name in task["categories"]:
            assert text.count(f"<td>{name}</td>") == len(results["tasks"])
    losses = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    best = min(line["loss"] for line in losses if line["event"] == "validation")
    assert f"<dd>{best:.4f}</dd>" in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_it_without_a_complaint(run_dir: Path, browser: Any, tmp_path: Path, width: int) -> None:  # noqa: F811
    page, said, asked = browser.new_page(viewport={"width": width, "height": 900}), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((run_dir / "report.html").as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    images = page.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth])")
    assert len(images) == 2
    assert all(is_complete and size > 300 for is_complete, size in images)
    drawings = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect().width)"
    )
    assert len(drawings) > 50
    assert min(drawings) > 80
    assert page.locator(".map svg polyline").count() > 20
    # No content overflows the width of the page.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture = tmp_path / "page.png"
    page.screenshot(path=str(picture), full_page=True)
    pixels = np.asarray(plt_read(picture))
    for title in TITLES:
        box = page.get_by_role("heading", name=title, exact=True).locator("xpath=..").bounding_box()
        part = pixels[int(box["y"]) : int(box["y"] + box["height"]), int(box["x"]) : int(box["x"] + box["width"])]
        # The section is not blank.
        assert (part[..., :3].mean(2) < 0.5).mean() > 0.003, title
    page.close()


def plt_read(path: Path) -> Any:
    import matplotlib.image

    return matplotlib.image.imread(path)


def test_a_run_that_was_not_evaluated_says_so(
    picture_shards: str, tmp_path: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_config(picture_shards, tmp_path, num_steps=2), "auto")
    out = tmp_path / "page.html"
    main(["report", str(tmp_path), "--out", str(out), "--count", "9", "--examples", "3"])
    assert capsys.readouterr().out == f"{out}\n"
    assert "Not measured yet" in out.read_text()
    assert "codes of 9 test drawings" in out.read_text()
    assert "holds no results.json" in said("report", tmp_path, "--evaluated", tmp_path / "nowhere")
    assert "count must be from 2" in said("report", tmp_path, "--count", "1")
    assert "does not exist; pass a run folder" in said("report", tmp_path / "nowhere")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/results.json").write_text("{}")
    assert "is damaged or of an old version" in said("report", tmp_path, "--evaluated", tmp_path / "broken")


def test_the_map_is_that_of_the_principal_components() -> None:
    generator = np.random.default_rng(0)
    # Two of the eight dimensions carry most of the variance.
    plane = np.linalg.qr(generator.normal(size=(8, 2)))[0]
    inside = generator.normal(size=(200, 2)) * [5, 2]
    codes = (inside @ plane.T + 0.01 * generator.normal(size=(200, 8)) + 3).astype(np.float32)
    found = principal_map(codes)
    assert found.shares[0] > found.shares[1] > 0.05
    assert sum(found.shares) > 0.999
    apart = np.linalg.norm(inside[:50, None] - inside[None, :50], axis=2)
    np.testing.assert_allclose(
        np.linalg.norm(found.places[:50, None] - found.places[None, :50], axis=2), apart, atol=0.2
    )
    # Equal codes map to a single place.
    assert not principal_map(np.ones((3, 4), dtype=np.float32)).places.any()
    assert principal_map(np.array([[1.0], [2.0]], dtype=np.float32)).places.shape == (2, 2)


def test_drawings_on_the_map_do_not_lie_on_each_other() -> None:
    places = np.random.default_rng(0).uniform(size=(400, 2))
    sketch = [np.array([[0.0, 0.0], [3.0, 1.0]]), np.array([[1.0, 1.0]])]
    svg = draw_map(places, [sketch] * 400, [number % 3 for number in range(400)], ["a", "<b>", "c"])
    firsts = np.array(
        re.findall(r'<g stroke="#\w+"><title>[^<]*</title><polyline points="([\d.-]+),([\d.-]+)', svg), float
    )
    assert 100 < len(firsts) < 400
    assert svg.count("<circle") == 400 - len(firsts)
    apart = np.abs(firsts[:, None] - firsts[None]).max(2) + 1e3 * np.eye(len(firsts))
    assert apart.min() >= 39.8
    assert "&lt;b&gt;" in svg
    assert len({color_of(number, 3) for number in range(3)}) == 3
