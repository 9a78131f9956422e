"""A soup: the mean of the weights of several trainings that began at the same weights, as one network.

Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time" (https://arxiv.org/abs/2203.05482), the greedy variant. Weights of trainings that began elsewhere have
nothing in common, and their mean is no network that works.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from fer_search.data.faces import Faces
from fer_search.recipe import Recipe
from fer_search.training.augment import augment
from fer_search.training.calibration import fit_temperature, log_probabilities, negative_log_likelihood
from fer_search.training.evaluation import predict_logits

STATISTICS_BATCH = 256
NUM_STATISTICS_IMAGES = 4_096
"""Fit images that tell a mean of weights its batch statistics, where there are as many."""
NETWORK_FIELDS = (
    "backbone", "pretrained", "image_size", "stem_stride", "output_stride", "fusion_width", "se_attention",
    "cbam_attention", "coordinate_attention", "self_attention_heads", "pyramid_pooling",
)  # fmt: skip
SWITCHED_BY = ("emotion_heads_weight", "auxiliary_weight")
"""Of these heads a network has the weights where the field is above 0."""

State = Mapping[str, Tensor]


@dataclass(frozen=True, order=True)
class Merit:
    """How good a network is on search-validation, without views: accuracy, and at a tie likelihood."""

    accuracy: float
    log_likelihood: float  # mean over the images, at the temperature that fits them


@dataclass(frozen=True)
class Taste:
    """What was tried beside the ingredients so far, by its number: the merit of the mean, and whether it was kept."""

    added: int
    merit: Merit
    kept: bool


def origin(recipe: Recipe) -> dict[str, Any]:
    """Return what recipes must have in common for their trainings to begin with the same network and weights."""
    return {
        **{field: getattr(recipe, field) for field in NETWORK_FIELDS},
        **{field: getattr(recipe, field) > 0 for field in SWITCHED_BY},
        "first_weights_seed": recipe.first_weights_seed,
    }


def greedy_soup(
    network: nn.Module, states: Sequence[State], recipe: Recipe, *, fit: Faces, validation: Faces, device: torch.device
) -> list[Taste]:
    """Leave the soup of these weights, the best training's first, in `network`, and return what was tried.

    The first is an ingredient; each of the others becomes one if the mean with it is no worse on search-validation.
    `recipe` says how fit images are augmented where batch statistics are computed anew. All ingredients weigh the same.
    """
    network.to(device)
    tastes: list[Taste] = []
    kept: list[State] = []
    best: State = {}
    for number, state in enumerate(states):
        network.load_state_dict(mean_of([*kept, state]))
        if kept:  # the first has the statistics that it was judged with
            renew_statistics(network, fit, recipe, device=device)
        found = merit_of(network, validation, device=device)
        is_kept = not kept or found >= max(taste.merit for taste in tastes if taste.kept)
        tastes.append(Taste(number, found, is_kept))
        if is_kept:
            kept.append(state)
            best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    network.load_state_dict(best)
    network.eval()
    return tastes


def mean_of(states: Sequence[State]) -> dict[str, Tensor]:
    """Return the mean of each weight; what is counted, such as batches, is the first one's."""
    first = states[0]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


def renew_statistics(network: nn.Module, fit: Faces, recipe: Recipe, *, device: torch.device) -> None:
    """Compute the statistics of batch normalisation anew, as means over fit images that are augmented as in training.

    The mean of several networks' statistics is not that of their mean's activations.
    """
    generator = torch.Generator(device).manual_seed(recipe.seed)
    order = torch.randperm(len(fit), generator=torch.Generator().manual_seed(recipe.seed))
    chosen = order[:NUM_STATISTICS_IMAGES].numpy()
    pixels, labels = torch.tensor(fit.pixels[chosen]), torch.tensor(fit.labels[chosen])

    def batches() -> Iterator[Tensor]:
        num_batches = max(1, len(chosen) // STATISTICS_BATCH)
        for x, y in zip(pixels.tensor_split(num_batches), labels.tensor_split(num_batches), strict=True):
            yield augment(x.to(device), y.to(device), fit.classes, recipe, generator)[0]

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)  # of dropout
        update_bn(batches(), network)
    network.eval()


def merit_of(network: nn.Module, faces: Faces, *, device: torch.device) -> Merit:
    """Measure a network on these faces."""
    logits = predict_logits(network, torch.tensor(faces.pixels, device=device)).cpu().numpy()
    likelihood = -negative_log_likelihood(
        log_probabilities(logits, fit_temperature(logits, faces.labels)), faces.labels
    )
    return Merit(float((logits.argmax(1) == faces.labels).mean()), likelihood)
