import json
import math
import tomllib
from pathlib import Path

import pytest

from fer_search.design import DESIGN
from fer_search.errors import InvalidInput
from fer_search.recipe import Recipe, commented_toml, parse_overrides

ROOT = Path(__file__).resolve().parent.parent


def test_the_design_has_the_settings_that_it_names():
    recipe = Recipe.design()
    assert (recipe.batch_size, recipe.batch_size * recipe.accumulation) == (32, 64)
    assert (recipe.max_lr / recipe.div_factor, recipe.max_lr) == (0.005, 0.01)
    assert (recipe.sam_rho, recipe.label_smoothing, recipe.mixup_alpha, recipe.cutmix_alpha) == (0.05, 0.1, 0.4, 0.5)
    assert (recipe.randaugment_probability_fear, recipe.randaugment_probability_sad) == (0.95, 0.9)
    assert (recipe.epochs, recipe.class_weight_power) == (300, 1.0)
    attention = (recipe.se_attention, recipe.cbam_attention, recipe.coordinate_attention, recipe.self_attention_heads)
    assert all((*attention, recipe.pyramid_pooling, recipe.fusion_width, recipe.auxiliary_weight))


def test_the_design_leaves_no_setting_of_the_training_to_the_defaults():
    about_the_data = {"split_seed", "validation_fraction", "fit_fraction", "drop_test_duplicates"}
    assert set(DESIGN) == set(Recipe.model_fields) - about_the_data - {"seed", "weights_seed"}


def test_a_stored_recipe_must_be_complete():
    values = Recipe().model_dump()
    assert Recipe.stored(values, source="result.json") == Recipe()
    del values["fusion_width"]
    with pytest.raises(InvalidInput, match=r"result.json: fusion_width: must be there .* got 'nothing'"):
        Recipe.stored(values, source="result.json")


def test_the_shipped_design_is_the_design():
    design = tomllib.loads((ROOT / "search_spaces" / "design.toml").read_text())
    first_trial = {key: domain["default"] for key, domain in design["space"].items()}
    assert Recipe.build({**design["base"], **first_trial}) == Recipe.design()


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
        ({"sam_rho": 0.0}, {"sam_interval": 3}),
        ({"randaugment_magnitude": 0.0}, {"randaugment_operations": 3}),
        ({"randaugment_magnitude": 0.0}, {"randaugment_probability": 0.3}),
        ({"randaugment_magnitude": 0.0}, {"randaugment_probability_fear": 0.3}),
        ({"randaugment_magnitude": 0.0}, {"randaugment_probability_sad": 0.3}),
        ({"mixup_alpha": 0.0, "cutmix_alpha": 1.0}, {"cutmix_share": 0.3}),
        ({"mixup_alpha": 1.0, "cutmix_alpha": 0.0}, {"cutmix_share": 0.3}),
        ({"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, {"mix_probability": 0.7}),
    ],
)
def test_a_setting_without_effect_is_an_error_and_its_default_is_not(off, setting):
    Recipe.build(off)
    (name,) = setting
    with pytest.raises(InvalidInput, match=rf"{name}: must stay .* since it has no effect while"):
        Recipe.build({**off, **setting})


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"mixup_alpha": 0.4, "mix_probability": 0.0}, "mix_probability"),
        ({"mixup_alpha": 0.4, "cutmix_alpha": 0.4, "cutmix_share": 1.0}, "cutmix_share"),
        (
            {
                "randaugment_magnitude": 5.0, "randaugment_probability": 0.0,
                "randaugment_probability_fear": 0.0, "randaugment_probability_sad": 0.0,
            },
            "randaugment_probability",
        ),
    ],
)  # fmt: skip
def test_a_technique_is_switched_off_in_one_way_only(settings, key):
    with pytest.raises(InvalidInput, match=f"recipe: {key}: must be above 0"):
        Recipe.build(settings)


@pytest.mark.parametrize("restarts", [[0], [3, 1], [2, 2], [10]])
def test_restarts_are_epochs_before_the_last_in_their_order(restarts):
    with pytest.raises(InvalidInput, match=r"restarts: must be epochs from 1 to 9, the earlier first and each once"):
        Recipe.build({"epochs": 10, "restarts": restarts})
    with pytest.raises(InvalidInput, match=r"restarts: must be a valid tuple, got 3"):
        Recipe.build({"restarts": 3})


def test_restarts_are_the_same_from_python_toml_json_and_the_command_line():
    recipe = Recipe.build({"restarts": (1, 3)})
    override = parse_overrides(["restarts=[1,3]"])
    assert recipe == Recipe.build(override) == Recipe.build(json.loads(json.dumps(recipe.model_dump())))
    assert recipe.restarts == (1, 3)
    assert recipe.digest() == Recipe.build(override).digest() != Recipe().digest()


def test_a_recipe_survives_its_own_toml(tmp_path):
    recipe = Recipe().replace(
        {"restarts": [1, 3], "max_lr": 1e-3, "backbone": "test_efficientnet", "sam_rho": 0.1, "sam_adaptive": True}
    )
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
    with pytest.raises(InvalidInput, match=r"bad.toml: file: must"):
        Recipe.read(path)


def test_every_field_is_described_in_one_line():
    assert all(field.description and "\n" not in field.description for field in Recipe.model_fields.values())
