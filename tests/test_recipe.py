import math
import tomllib

import pytest

from fer_search.errors import InvalidInput
from fer_search.recipe import Recipe, commented_toml, parse_overrides


def test_the_defaults_are_the_settings_of_the_reference_design():
    recipe = Recipe()
    assert (recipe.batch_size, recipe.batch_size * recipe.accumulation) == (32, 64)
    assert (recipe.max_lr / recipe.div_factor, recipe.max_lr) == (0.005, 0.01)
    assert (recipe.sam_rho, recipe.label_smoothing, recipe.mixup_alpha, recipe.cutmix_alpha) == (0.05, 0.1, 0.4, 0.5)
    assert recipe.epochs == 300


def test_all_problems_come_at_once_with_the_nearest_name_of_an_unknown_field():
    values = {"max_lrr": 1, "epochs": 0, "sam_rho": math.nan, "batch_size": 3.5, "optimizer": "x"}
    with pytest.raises(InvalidInput) as error:
        Recipe.build(values, source="f.toml")
    assert set(error.value.problems) == {
        "f.toml: max_lrr: must be a field of the recipe (did you mean 'max_lr'?), got 1",
        "f.toml: epochs: must be greater than or equal to 1, got 0",
        "f.toml: sam_rho: must be a finite number, got nan",
        "f.toml: batch_size: must be a valid integer, got 3.5",
        "f.toml: optimizer: must be 'sgd' or 'adamw', got 'x'",
    }


@pytest.mark.parametrize(
    ("off", "setting"),
    [
        ({"sam_rho": 0.0}, {"sam_adaptive": True}),
        ({"randaugment_magnitude": 0.0}, {"randaugment_operations": 3}),
        ({"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, {"mix_probability": 0.7}),
    ],
)
def test_a_setting_without_effect_is_an_error_and_its_default_is_not(off, setting):
    Recipe.build(off)
    (name,) = setting
    with pytest.raises(InvalidInput, match=rf"{name}: must stay .* since it has no effect while"):
        Recipe.build({**off, **setting})


def test_a_recipe_survives_its_own_toml(tmp_path):
    recipe = Recipe().replace({"max_lr": 1e-3, "backbone": "test_efficientnet", "sam_adaptive": True})
    path = tmp_path / "recipe.toml"
    path.write_text(commented_toml(recipe))
    assert Recipe.read(path) == recipe
    assert tomllib.loads(path.read_text()) == recipe.model_dump()
    assert Recipe.read(path).digest() == recipe.digest() != Recipe().digest()


def test_overrides_are_toml_values_and_bare_words():
    found = parse_overrides(["max_lr=1e-4", "backbone=resnet18", "sam_adaptive=true", "epochs=3"])
    assert found == {"max_lr": 1e-4, "backbone": "resnet18", "sam_adaptive": True, "epochs": 3}
    with pytest.raises(InvalidInput) as error:
        parse_overrides(["epochs", "seed=1", "seed=2"])
    assert len(error.value.problems) == 2


@pytest.mark.parametrize("content", ["epochs = ", b"\xff\xfe", None])
def test_a_file_that_is_no_toml_is_one_clear_error(tmp_path, content):
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInput, match=r"bad.toml: file: must be"):
        Recipe.read(path)


def test_every_field_is_described_in_one_line():
    assert all(field.description and "\n" not in field.description for field in Recipe.model_fields.values())
