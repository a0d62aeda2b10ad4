"""`sgloc generate`: the files it writes, and how drawings are sampled from a model (METHOD 3 and 9)."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import fsspec.core
import matplotlib.image
import numpy as np
import pytest
import torch
from torch import Tensor

from sgloc import random
from sgloc.data.build.run import build_shards
from sgloc.data.formats.form import read_drawings
from sgloc.data.manifest import load_manifest
from sgloc.data.reader import ShardReader
from sgloc.errors import CheckpointError, ConfigError
from sgloc.evaluate.generate import Redrawn, generate, to_simplified
from sgloc.evaluate.options import GenerateOptions
from sgloc.inference.sampling import draw
from sgloc.models.sketchgloc.config import CellName
from sgloc.models.sketchgloc.decoder import Decoder
from sgloc.nn.rows import PEN_DOWN, PEN_END, PEN_LIFT
from sgloc.sketch.drawing import Reject
from tests.builds import read_sketches
from tests.checkpoints import change_manifest, make_model, model_config, save_model
from tests.drawings import make_drawings, stroke3_to_polylines, stroke3s_of, write_ndjson
from tests.oracle.network import greedy_step

CPU = torch.device("cpu")
CELLS: tuple[CellName, ...] = ("lstm", "layer_norm", "hyper")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_shards: str) -> str:
    return str(save_model(tmp_path_factory.mktemp("run"), tiny_shards, make_model()))


def run(checkpoint: str, shards: str, folder: Path | str, **options: Any) -> list[Redrawn]:
    return generate(checkpoint, shards, str(folder), GenerateOptions(**options), device=CPU)


def lines_close(found: list[Any], expected: list[Any]) -> bool:
    # The canvas has 255 units; when free-running, the decoder feeds float32 rounding errors back into itself.
    same_shapes = [line.shape for line in found] == [line.shape for line in expected]
    return same_shapes and all(np.allclose(*pair, atol=2e-2) for pair in zip(found, expected, strict=True))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Files


def test_the_files_are_what_they_claim_to_be(tmp_path: Path, checkpoint: str, tiny_shards: str) -> None:
    drawn = run(checkpoint, tiny_shards, tmp_path, temperature=0.5, disturb=0.1, seed=1)
    assert len(drawn) == 12
    lines = list(read_drawings(str(tmp_path / "redrawn.ndjson")))
    svgs = sorted((tmp_path / "svg").iterdir())
    assert len(lines) == len(svgs) == len(drawn)
    num_empty = 0
    for number, (one, line, svg) in enumerate(zip(drawn, lines, svgs, strict=True)):
        if isinstance(line, Reject):
            assert (line.reason, one.redrawn) == ("empty_drawing", [])
            num_empty += 1
        else:
            assert (line.category, line.key_id) == (one.category, one.key_id)
            strokes = stroke3_to_polylines(line.stroke3)
            assert [len(stroke) for stroke in strokes] == [len(stroke) for stroke in one.redrawn]
            assert np.concatenate(strokes).min() >= 0
        assert svg.name == f"{number:05d}-{one.category.replace(' ', '-')}.svg"
        assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")
    assert 0 < num_empty < len(drawn)
    height, width, _ = matplotlib.image.imread(tmp_path / "gallery.png").shape
    assert width > 12 * 100
    assert height > 3 * 100


def test_sketches_are_spread_evenly_over_the_split(tmp_path: Path, checkpoint: str, tiny_shards: str) -> None:
    manifest = load_manifest(tiny_shards)
    packed = read_sketches(ShardReader(tiny_shards, manifest, "test"), np.arange(12))
    everything = [int(key) for key in packed.key_id]
    assert [one.key_id for one in run(checkpoint, tiny_shards, tmp_path, max_points=1)] == everything
    four = run(checkpoint, tiny_shards, tmp_path, max_points=1, count=4)
    assert [one.key_id for one in four] == everything[::3]
    assert [one.category for one in four] == [manifest.categories[number] for number in packed.category[::3]]
    for one, rows in zip(four, stroke3s_of(packed)[::3], strict=True):
        assert lines_close(one.original, stroke3_to_polylines(rows))


def test_a_category_does_not_decide_where_a_file_goes(tmp_path: Path, checkpoint: str) -> None:
    write_ndjson(tmp_path / "x.ndjson", make_drawings(60, ["../../../up", "a/../../../../b", "été/\\."]))
    build_shards(str(tmp_path / "x.ndjson"), str(tmp_path / "shards"))
    before = set(tmp_path.rglob("*"))
    run(checkpoint, str(tmp_path / "shards"), tmp_path / "out/deep", split="train", count=9, max_points=2)
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    svgs = {path for path in new if path.parent == tmp_path / "out/deep/svg"}
    assert len(svgs) == 9
    assert {path.name for path in new - svgs} == {"redrawn.ndjson", "gallery.png"}


def test_files_can_go_behind_a_url(tmp_path: Path, checkpoint: str, tiny_shards: str) -> None:
    run(checkpoint, tiny_shards, f"memory://{tmp_path}/drawn", count=2)
    run(checkpoint, tiny_shards, tmp_path / "drawn", count=2)
    file_system, root = fsspec.core.url_to_fs(f"memory://{tmp_path}/drawn")
    found = {path.removeprefix(f"{root}/"): file_system.cat_file(path) for path in file_system.find(root)}
    assert found == files_of(tmp_path / "drawn")


def test_rows_of_the_gallery(tmp_path: Path, checkpoint: str, tiny_shards: str) -> None:
    def gallery(*rows: str, **options: Any) -> bytes:
        run(checkpoint, tiny_shards, tmp_path, count=3, rows=rows, **options)
        return (tmp_path / "gallery.png").read_bytes()

    def height() -> int:
        return int(matplotlib.image.imread(tmp_path / "gallery.png").shape[0])

    gallery("original", "disturbed", "redrawn", disturb=0.3)
    three = height()
    gallery("original", "redrawn", disturb=0.3)
    two = height()
    original = gallery("original", disturb=0.3)
    cell = three - two
    assert cell > 50
    assert two - height() == cell
    assert gallery("disturbed", disturb=0.3) != original != gallery("redrawn", disturb=0.3)
    assert gallery("put_back", disturb=0.3) != gallery("redrawn", disturb=0.3)
    # Synthesis moves no stroke, so these rows would only repeat the original.
    assert gallery("original", "disturbed", "put_back", "redrawn") == gallery("original", "redrawn")


def test_simplified_drawings_fit_the_canvas_and_are_enlarged_never() -> None:
    small = [np.array([[-3.0, 5.0], [7.4, 5.0]]), np.array([[0.0, 9.6]])]
    assert to_simplified(small) == [[[0, 10], [0, 0]], [[3], [5]]]
    large = [np.array([[-100.0, 0.0], [410.0, 255.0]])]
    assert to_simplified(large) == [[[0, 255], [0, 128]]]
    assert to_simplified([np.array([[4.0, 4.0]])]) == [[[0], [0]]]
    assert to_simplified([]) == []


# Disturbance, and independence of the batch


def test_synthesis_leaves_strokes_where_they_are(tmp_path: Path, checkpoint: str, tiny_shards: str) -> None:
    for one in run(checkpoint, tiny_shards, tmp_path, seed=3):
        assert all(np.array_equal(*pair) for pair in zip(one.disturbed, one.original, strict=True))


def test_reorganization_moves_every_stroke_but_the_first(tmp_path: Path, checkpoint: str, tiny_shards: str) -> None:
    kept = run(checkpoint, tiny_shards, tmp_path)
    moved = run(checkpoint, tiny_shards, tmp_path, disturb=0.3, seed=3)
    shifts = []
    for one, still in zip(moved, kept, strict=True):
        assert lines_close(one.original, still.original)
        assert lines_close(one.disturbed[:1], one.original[:1])
        shift = one.disturbed[1] - one.original[1]
        np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-3)
        shifts.append(shift[0])
    assert np.linalg.norm(shifts, axis=1).min() > 1
    assert any(not lines_close(one.redrawn, still.redrawn) for one, still in zip(moved, kept, strict=True))
    again = run(checkpoint, tiny_shards, tmp_path, disturb=0.3, seed=3, batch_size=5)
    other = run(checkpoint, tiny_shards, tmp_path, disturb=0.3, seed=4)
    assert all(lines_close(one.disturbed, two.disturbed) for one, two in zip(moved, again, strict=True))
    assert not any(lines_close(one.disturbed, two.disturbed) for one, two in zip(moved, other, strict=True))


def test_greedy_is_deterministic(tmp_path: Path, checkpoint: str, tiny_shards: str) -> None:
    run(checkpoint, tiny_shards, tmp_path / "one", seed=1)
    run(checkpoint, tiny_shards, tmp_path / "two", seed=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_sampling_depends_on_seed_and_sketch_not_on_the_batch(
    tmp_path: Path, checkpoint: str, tiny_shards: str
) -> None:
    together = run(checkpoint, tiny_shards, tmp_path, temperature=0.5, batch_size=64)
    alone = run(checkpoint, tiny_shards, tmp_path, temperature=0.5, batch_size=1)
    fewer = run(checkpoint, tiny_shards, tmp_path, temperature=0.5, count=4, batch_size=3)
    other = run(checkpoint, tiny_shards, tmp_path, temperature=0.5, seed=1)
    assert all(lines_close(one.redrawn, two.redrawn) for one, two in zip(together, alone, strict=True))
    assert all(lines_close(one.redrawn, two.redrawn) for one, two in zip(together[::3], fewer, strict=True))
    assert sum(not lines_close(one.redrawn, two.redrawn) for one, two in zip(together, other, strict=True)) > 6


# Drawing from codes


def codes(number: int) -> tuple[Tensor, Tensor]:
    """Return random codes, float64 [number, Z], and their keys, int64 [number]."""
    generator = torch.Generator().manual_seed(0)
    keys = random.fold(5, torch.arange(number))
    return torch.randn(number, model_config().latent_size, generator=generator, dtype=torch.float64), keys


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_all_in_step_equals_one_by_one(cell: CellName, temperature: float) -> None:
    decoder = make_model(cell).decoder.double()
    y, keys = codes(16)
    together = draw(decoder, y, keys, max_points=12, temperature=temperature)
    assert len({len(rows) for rows in together}) > 3
    for code, key, rows in zip(y, keys, together, strict=True):
        (alone,) = draw(decoder, code[None], key[None], max_points=12, temperature=temperature)
        torch.testing.assert_close(rows, alone)


@pytest.mark.parametrize("cell", CELLS)
def test_a_greedy_step_is_the_oracles(cell: CellName) -> None:
    decoder = make_model(cell).decoder.double()
    raw_rows: list[Tensor] = []
    decoder.output.register_forward_hook(lambda _module, _inputs, raw: raw_rows.append(raw[0]))
    ends = set()
    for code, key in zip(*codes(16), strict=True):
        raw_rows.clear()
        (rows,) = draw(decoder, code[None], key[None], max_points=7, temperature=0)
        expected = [greedy_step(raw.numpy()) for raw in raw_rows]
        ended = expected[-1][2 + PEN_END] == 1
        np.testing.assert_array_equal(rows, np.reshape(expected[:-1] if ended else expected, (-1, 5)))
        assert len(raw_rows) == 7 or ended
        ends.add(bool(ended))
    assert ends == {True, False}


def constant_decoder(pen: tuple[float, float, float]) -> Decoder:
    """Return a decoder with constant outputs: these pen logits, and one mixture component that dominates two others."""
    decoder = make_model().decoder.double()
    with torch.no_grad():
        decoder.output.weight.zero_()
        decoder.output.bias.zero_()
        decoder.output.bias[:3] = torch.tensor(pen)
        parameters = decoder.output.bias[3:].view(6, 3)
        parameters[0] = torch.tensor([0.0, 50.0, 0.0])
        # The mean is (3, -2), the standard deviations are 2 and 0.5, the correlation is 0.6.
        parameters[1:, 1] = torch.tensor([3.0, -2.0, np.log(2), np.log(0.5), np.arctanh(0.6)])
    return decoder


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_a_drawing_stops_at_the_end_row_or_the_limit(temperature: float) -> None:
    y, keys = codes(3)
    for pen, length in (((5.0, 0.0, 0.0), 9), ((0.0, 5.0, 0.0), 9), ((0.0, 0.0, 5.0), 0)):
        drawings = draw(constant_decoder(pen), y, keys, max_points=9, temperature=temperature)
        assert [rows.shape for rows in drawings] == [(length, 5)] * 3
        assert all((rows[:, 2:].argmax(1) == int(np.argmax(pen))).all() for rows in drawings)
    assert [len(rows) for rows in draw(constant_decoder((5.0, 0.0, 0.0)), y, keys, max_points=0, temperature=0)] == [
        0
    ] * 3


@pytest.mark.parametrize("temperature", [1.0, 0.24])
def test_temperature_divides_logits_and_multiplies_variances(temperature: float) -> None:
    number = 40_000
    y, keys = codes(number)
    logits = torch.tensor([1.0, 0.5, 0.7], dtype=torch.float64)
    decoder = constant_decoder((1.0, 0.5, 0.7))
    drawings = draw(decoder, y, keys, max_points=1, temperature=temperature)
    rows = torch.cat(drawings)
    shares = torch.softmax(logits / temperature, 0)
    counted = torch.tensor([rows[:, 2 + PEN_DOWN].sum(), rows[:, 2 + PEN_LIFT].sum(), number - len(rows)]) / number
    np.testing.assert_allclose(counted, shares, atol=0.01)
    # Drawings that ended at once have no points; this does not bias the rest, because pen and point are independent.
    np.testing.assert_allclose(rows[:, :2].mean(0), [3.0, -2.0], atol=0.05)
    covariance = temperature * np.array([[4.0, 0.6], [0.6, 0.25]])
    np.testing.assert_allclose(np.cov(rows[:, :2].T.numpy()), covariance, rtol=0.05)


def test_the_limit_is_the_longest_training_drawing_unless_given(tmp_path: Path, tiny_shards: str) -> None:
    model = make_model()
    model.decoder.load_state_dict(constant_decoder((5.0, 0.0, 0.0)).state_dict())
    endless = str(save_model(tmp_path / "run", tiny_shards, model))
    assert load_manifest(tiny_shards).longest_points == 6
    assert [len(line) for one in run(endless, tiny_shards, tmp_path) for line in one.redrawn] == [6] * 12
    assert [len(line) for one in run(endless, tiny_shards, tmp_path, max_points=11) for line in one.redrawn] == [
        11
    ] * 12
    # Generated points are in the source's units.
    scale = load_manifest(tiny_shards).scale
    np.testing.assert_allclose(run(endless, tiny_shards, tmp_path)[0].redrawn[0][0], [3 * scale, -2 * scale], rtol=1e-5)


# User errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be from 1"),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"max_points": -1}, "max_points must be from 0"),
        ({"max_points": 10**12}, "max_points must be from 0 to 100,000"),
        ({"temperature": -0.1}, "temperature must be from 0"),
        ({"temperature": float("nan")}, "temperature must be from 0"),
        ({"disturb": float("inf")}, "disturb must be from 0"),
        ({"rows": ("original", "drawn")}, "rows must be some of original, disturbed, put_back, redrawn, not drawn"),
        ({"rows": ()}, "rows must be some of .*, not none"),
        ({"rows": ("disturbed",)}, "rows must be a list with original or redrawn when disturb is 0, not disturbed"),
        (
            {"rows": ("disturbed", "put_back")},
            "rows must be a list with original or redrawn when disturb is 0, not disturbed, put_back",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GenerateOptions(**options)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(config={}),
        lambda fields: fields["config"]["model"].pop("encoder"),
        lambda fields: fields["config"]["model"].update(attention_heads=4),
        lambda fields: fields["config"]["model"].update(latent_size=0),
        lambda fields: fields["config"]["model"].update(latent_size=6),
        lambda fields: fields["config"]["model"]["decoder"].update(cell="transformer"),
        lambda fields: fields["config"]["model"]["decoder"].update(hidden_size=7.5),
    ],
    ids=["no-config", "no-encoder", "unknown-field", "latent-size-0", "latent-size-6", "other-cell", "hidden-size-7.5"],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, tiny_shards: str, change: Any) -> None:
    folder = save_model(tmp_path / "run", tiny_shards, make_model())
    change_manifest(folder, change)
    with pytest.raises(CheckpointError, match="another model"):
        run(str(folder), tiny_shards, tmp_path / "out")
    assert not (tmp_path / "out").exists()
