import random
from itertools import product

import numpy as np
import pytest
import torch

from fer_search.recipe import Recipe
from fer_search.training.leak_probe import accuracy_bound, leak_probe

CLEAN = {
    "flip_probability": 0.5, "shift_pixels": 4, "randaugment_magnitude": 9.0, "randaugment_operations": 2,
    "erasing_probability": 0.0, "mixup_alpha": 0.0, "cutmix_alpha": 0.0,
}  # fmt: skip
NUM_IMAGES = 7_000


def recipe(others, fear, sad, **changes):
    names = ("randaugment_probability", "randaugment_probability_fear", "randaugment_probability_sad")
    return Recipe().replace({**CLEAN, **dict(zip(names, (others, fear, sad), strict=True)), **changes})


@pytest.mark.parametrize(("probability", "changes"), [(0.8, {}), (0.5, {"erasing_probability": 0.5})])
def test_with_equal_probabilities_a_blank_image_says_nothing_about_its_label(probability, changes):
    probe = leak_probe(recipe(probability, probability, probability, **changes), num_images=NUM_IMAGES)
    assert probe.chance == 1 / 7
    assert probe.low < probe.chance < probe.high
    assert probe.bound == probe.chance


def test_an_artefact_that_two_emotions_always_have_and_the_others_never_is_found():
    probe = leak_probe(recipe(0.0, 1.0, 1.0), num_images=NUM_IMAGES)
    assert probe.bound == pytest.approx(2 / 7)
    assert probe.low > probe.chance + 0.08
    assert probe.low < probe.bound
    assert probe.advantage == pytest.approx(probe.accuracy - 1 / 7)


def test_the_interval_is_wilsons_on_half_of_the_images():
    probe = leak_probe(recipe(0.0, 1.0, 1.0), num_images=1_400)
    n, p, z = 700, probe.accuracy, 1.959964
    centre, radius = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (probe.low, probe.high) == pytest.approx(
        ((centre - radius) / (1 + z**2 / n), (centre + radius) / (1 + z**2 / n)), abs=1e-6
    )


@pytest.mark.parametrize("chances", [(0.8, 0.95, 0.9), (0.0, 1.0, 1.0), (0.9, 0.2, 0.5), (0.4, 0.4, 0.4)])
def test_the_bound_is_the_best_of_all_rules_from_augmented_or_not_to_an_emotion(chances):
    others, fear, sad = chances
    augmented = np.array([others, others, fear, others, sad, others, others])
    rules = product(range(7), repeat=2)
    best = max((augmented[if_so] + (1 - augmented[if_not])) / 7 for if_so, if_not in rules)
    assert accuracy_bound(recipe(*chances)) == pytest.approx(best)


def test_without_randaugment_the_bound_is_chance():
    assert accuracy_bound(Recipe().replace({"randaugment_magnitude": 0.0})) == 1 / 7


def test_the_seed_decides_and_global_random_state_is_left_alone():
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = state()
    uneven = recipe(0.2, 1.0, 0.7)
    first = leak_probe(uneven, num_images=1_400, seed=1)
    assert leak_probe(uneven, num_images=1_400, seed=1) == first
    assert leak_probe(uneven, num_images=1_400, seed=2) != first
    assert state() == before
