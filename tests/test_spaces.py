"""What a trial would stumble over is found before any starts."""

from pathlib import Path

import pytest

from fer_search.errors import InvalidInput
from fer_search.spaces import check_corners, check_space

SMALL = {"backbone": "test_resnet", "pretrained": False, "stem_stride": 2, "fusion_width": 0, "epochs": 2}


def check(base, space, num_images=1000):
    fixed = {key: value for key, value in {**SMALL, **base}.items() if key not in space}
    checked = check_space({"base": fixed, "space": space}, source=Path("s.toml"))
    check_corners(checked, num_images=num_images, source=Path("s.toml"))


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
