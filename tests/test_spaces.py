"""What a trial would stumble over is found before any starts."""

import re
import tomllib
from pathlib import Path

import optuna
import pytest

from fer_search.data.faces import FER2013
from fer_search.errors import InvalidInput
from fer_search.files import read_toml
from fer_search.recipe import Recipe
from fer_search.spaces import check_corners, check_space

FOLDER = Path(__file__).parent.parent / "search_spaces"
SMALL = {"backbone": "test_resnet", "pretrained": False, "stem_stride": 2, "fusion_width": 0, "epochs": 2}


def check(base, space, num_images=1000):
    fixed = {key: value for key, value in {**SMALL, **base}.items() if key not in space}
    checked = check_space({"base": fixed, "space": space}, source=Path("s.toml"))
    check_corners(checked, FER2013, num_images=num_images, source=Path("s.toml"))


def test_a_space_that_can_be_trained_everywhere_passes():
    check({}, {"output_stride": {"choices": [32, 16]}, "drop_path": {"low": 0.0, "high": 0.3}})


@pytest.mark.parametrize(
    ("base", "space", "message"),
    [
        ({"drop_path": 0.0}, {"backbone": {"choices": ["test_resnet", "mixer_s16_224"], "default": "test_resnet"}}, "backbone: must be a convolutional timm model"),
        ({"backbone": "densenet121"}, {"drop_path": {"low": 0.0, "high": 0.3}}, "drop_path: must be 0.0 for densenet121, which does not have it, got 0.3"),
        ({"backbone": "densenet121"}, {"output_stride": {"choices": [32, 16]}}, "output_stride: must be 32 for densenet121, which does not have it, got 16"),
        ({}, {"pyramid_pooling": {"choices": [False, True]}}, "pyramid_pooling: must be false for a map of 2 x 2 cells"),
        ({}, {"batch_size": {"low": 32, "high": 4096}}, "pct_start: must cover more than one of the run's 2 optimizer steps"),
        ({"sam_rho": 0.1}, {"sam_interval": {"low": 1, "high": 40}}, "sam_interval: must be at most the 16 steps of an epoch, got 40"),
    ],
)  # fmt: skip
def test_a_combination_that_no_trial_could_train_is_an_error_before_any_starts(base, space, message):
    with pytest.raises(InvalidInput) as error:
        check(base, space)
    assert any(message in line for line in error.value.problems), error.value.problems


def test_each_choice_is_tried_beside_each_other():
    """Either is sound beside the first value of the other; together a map of 2 x 2 cells is left."""
    space = {
        "stem_stride": {"choices": [1, 2], "default": 1},
        "pyramid_pooling": {"choices": [False, True], "default": False},
    }
    with pytest.raises(InvalidInput, match="pyramid_pooling: must be false for a map of 2 x 2 cells"):
        check({}, space)


def test_a_setting_that_needs_another_is_searched_where_that_one_is_on():
    """Adaptive SAM without SAM is an error, and so is searching it for a radius of zero."""
    rho, adaptive = {"choices": [0.0, 0.05]}, {"choices": [False, True]}
    with pytest.raises(
        InvalidInput, match=r"space: at sam_rho = 0.0, sam_adaptive = True: sam_adaptive: must stay False"
    ):
        check({}, {"sam_rho": {**rho, "default": 0.05}, "sam_adaptive": adaptive})
    check({}, {"sam_rho": rho, "sam_adaptive": {**adaptive, "when": {"sam_rho": 0.05}}})


def test_a_network_is_tried_with_what_only_a_condition_brings_about():
    stride = {"choices": [32, 16], "when": {"backbone": "densenet121"}}
    space = {
        "backbone": {"choices": ["test_resnet", "densenet121"], "default": "test_resnet"},
        "output_stride": stride,
    }
    with pytest.raises(InvalidInput, match="output_stride: must be 32 for densenet121, which does not have it, got 16"):
        check({"drop_path": 0.0}, space)
    check({"drop_path": 0.0}, {**space, "output_stride": {**stride, "when": {"backbone": "test_resnet"}}})


def test_all_problems_of_a_file_are_reported_at_once():
    table = {"search": {"resource": "batch_size"}, "space": {"split_seed": {"low": 0, "high": 9}, "max_lrr": {}}}
    with pytest.raises(InvalidInput) as error:
        check_space(table, source=Path("s.toml"))
    assert [line.split(": ")[1] for line in error.value.problems] == [
        "space.split_seed", "search.resource", "space.max_lrr",
    ]  # fmt: skip


def test_the_shipped_spaces_and_the_examples_of_their_format_build_recipes_at_200_random_points():
    spaces = [(path.name, read_toml(path)) for path in sorted(FOLDER.glob("*.toml"))]
    assert [name for name, _ in spaces] == [
        "augmentation.toml", "calibration.toml", "design.toml", "full.toml", "network.toml", "sam_onecycle.toml", "smoke.toml",
    ]  # fmt: skip
    examples = re.findall(r"```toml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert len(examples) == 2
    spaces += [(f"example {number}", tomllib.loads(text)) for number, text in enumerate(examples)]
    for name, table in spaces:
        space = check_space(table, source=Path(name))
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for point in space.points:
            study.enqueue_trial(point)
        drawn = [space.suggest(study.ask()) for _ in range(200)]
        assert tuple(drawn[: len(space.points)]) == space.points
        for point in drawn:
            Recipe.build(space.complete(point), source=name)


def test_sam_and_its_adaptive_form_are_each_searched_over_radii_of_their_own():
    path = FOLDER / "sam_onecycle.toml"
    space = check_space(read_toml(path), source=path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    radii = {False: [], True: []}
    for _ in range(100):
        values = space.complete(space.suggest(study.ask()))
        radii[values["sam_adaptive"]].append(values["sam_rho"])
    assert 0.01 <= min(radii[False]) < max(radii[False]) <= 0.2
    assert 0.1 <= min(radii[True]) < max(radii[True]) <= 2.0
    assert max(radii[True]) > 1.0
