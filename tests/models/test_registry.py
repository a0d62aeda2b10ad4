"""Models are found by name, and a name in a file never causes an import (DESIGN contract 7)."""

import dataclasses
import sys
from pathlib import Path

import pytest

from sgloc.errors import CheckpointError, ConfigError
from sgloc.models import DEFAULT_KIND, recipe_of, recorded_kind, recorded_recipe
from sgloc.models.sketch_a_net.config import ClassifierConfig
from sgloc.models.sketch_a_net.recipe import SketchANetRecipe
from sgloc.models.sketchgloc.config import Config
from sgloc.models.sketchgloc.recipe import SketchGlocRecipe
from tests.checkpoints import without


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path with a module `outside`, which creates a file when it is imported."""
    source = "from pathlib import Path\nPath(__file__).with_name('imported').touch()\nclass Recipe:\n    pass\n"
    (tmp_path / "outside.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "outside", raising=False)
    return tmp_path


def install(folder: Path, kind: str) -> None:
    """Simulate an installed package that registers the module as a model of this name."""
    info = folder / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sgloc.models]\n{kind} = outside:Recipe\n")


@pytest.mark.parametrize("kind", ["sketchgloc", "sketch_rnn", "sketch_a_net"])
def test_a_model_of_this_package_is_its_folder(kind: str) -> None:
    expected = SketchANetRecipe if kind == "sketch_a_net" else SketchGlocRecipe
    assert isinstance(recipe_of(kind), expected)


@pytest.mark.parametrize("config", [Config(), ClassifierConfig()], ids=["sketchgloc", "sketch_a_net"])
def test_a_configuration_says_which_model_it_is_of(config: Config | ClassifierConfig) -> None:
    recipe = recorded_recipe(dataclasses.asdict(config))
    assert recipe is recipe_of(config.model.kind)
    assert recipe.config_type is type(config)
    # Older checkpoints record no model name.
    assert recorded_recipe(without(config, "model.kind")) is recipe
    assert recorded_kind({}) == DEFAULT_KIND


def test_an_unknown_model_is_refused_and_the_known_are_named() -> None:
    with pytest.raises(
        ConfigError, match="unknown model 'sketchglock'; choose one of sketch_a_net, sketch_rnn, sketchgloc"
    ):
        recipe_of("sketchglock")
    with pytest.raises(ConfigError, match=r"the model nowhere:Recipe cannot be imported .* PYTHONPATH"):
        recipe_of("nowhere:Recipe")
    with pytest.raises(ConfigError, match=r"the model sgloc\.errors:Recipe cannot be imported"):
        recipe_of("sgloc.errors:Recipe")


def test_a_model_from_outside_is_named_by_its_package(outside: Path) -> None:
    assert type(recipe_of("outside:Recipe")).__name__ == "Recipe"
    assert (outside / "imported").exists()


def test_a_model_of_an_installed_package_has_a_name(outside: Path) -> None:
    install(outside, "outsider")
    assert type(recipe_of("outsider")).__name__ == "Recipe"
    assert type(recorded_recipe({"model": {"kind": "outsider"}})).__name__ == "Recipe"


def test_an_installed_package_cannot_take_the_name_of_a_model_of_this_one(outside: Path) -> None:
    install(outside, "sketchgloc")
    assert isinstance(recipe_of("sketchgloc"), SketchGlocRecipe)
    assert not (outside / "imported").exists()


def test_what_a_checkpoint_names_is_not_imported(outside: Path) -> None:
    config = {"model": {"kind": "outside:Recipe"}}
    with pytest.raises(CheckpointError, match="name the kind 'outside:Recipe' yourself"):
        recorded_recipe(config)
    assert not (outside / "imported").exists()
    assert type(recorded_recipe(config, "outside:Recipe")).__name__ == "Recipe"
