"""Batch augmentation on the device: pure functions of (images, labels, classes, recipe, generator).

First each image is distorted by itself, then images are mixed with each other. All images go through the same tensor
operations, with parameters that change nothing where an operation was not drawn: nothing here waits for the device, and
the random draws depend neither on the pixels nor on the labels. Images are float tensors (N, C, H, W) in [0, 1].
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from fer_search.recipe import CLASS_FIELDS, Recipe
from fer_search.training.boxes import cutmix_boxes, erasing_boxes
from fer_search.training.randaugment import draw_operations, recolor, warp
from fer_search.training.views import as_images


def augment(
    pixels: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    recipe: Recipe,
    generator: Generator,
    soft_labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Turn uint8 pixels, (N, H, W) or (N, H, W, 3), and labels (N,) into training images (N, C, H, W) in [0, 1] and
    targets (N, classes).

    Rows of the targets sum to 1; label smoothing is not in them yet. Of the images' `soft_labels` (N, classes) they
    hold the recipe's share. `generator` lives on the device of the pixels.
    """
    images = distort(pixels, labels, classes, recipe, generator)
    # Not one_hot, which on a CPU first asks for the largest label: a step asks the device for nothing.
    targets = torch.eye(len(classes), device=labels.device)[labels]
    if soft_labels is not None:
        targets = torch.lerp(targets, soft_labels, recipe.soft_label_weight)
    if recipe.mixup_alpha > 0 or recipe.cutmix_alpha > 0:
        images, targets = mix(images, targets, recipe, generator)
    return images, targets


def distort(pixels: Tensor, labels: Tensor, classes: Sequence[str], recipe: Recipe, generator: Generator) -> Tensor:
    """Return what augmentation makes of each image by itself, (N, C, H, W) in [0, 1]: all but the mixing.

    A label has a say in how likely RandAugment is, and in nothing else. How much even that tells a network about the
    label is measured by `leak_probe`.
    """
    images = as_images(pixels).div_(255)
    images = random_flip(images, recipe.flip_probability, generator)
    shift = random_shift(len(images), recipe.shift_pixels, generator)
    if recipe.randaugment_magnitude > 0:
        chance = randaugment_chance(labels, classes, recipe)
        strength = recipe.randaugment_magnitude / 30
        amounts = draw_operations(chance, recipe.randaugment_operations, strength, generator)
        images = warp(images, amounts, shift)
        images = recolor(images, amounts)
    elif recipe.shift_pixels > 0:
        images = warp(images, {}, shift)
    if recipe.erasing_probability > 0:
        images = random_erasing(images, recipe.erasing_probability, generator)
    return images


def random_flip(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Mirror each image left to right with the given probability."""
    chosen = _uniform(len(images), generator) < probability
    return torch.lerp(images, images.flip(-1), chosen.float()[:, None, None, None])


def random_shift(num_images: int, shift_pixels: int, generator: Generator) -> Tensor:
    """Draw whole-pixel shifts (N, 2), x and y, evenly from -shift_pixels to shift_pixels."""
    size = (num_images, 2)
    return torch.randint(
        -shift_pixels, shift_pixels + 1, size, generator=generator, device=generator.device, dtype=torch.float32
    )


def randaugment_chance(labels: Tensor, classes: Sequence[str], recipe: Recipe) -> Tensor:
    """Return p(RandAugment | class) for each label: (N,) to (N,)."""
    chance = torch.full(labels.shape, recipe.randaugment_probability, device=labels.device)
    # Not a lookup in a tensor of all chances, which would have to be sent to the device at every step.
    for name, field in CLASS_FIELDS.items():
        if name in classes:
            chance = torch.where(labels == classes.index(name), getattr(recipe, field), chance)
    return chance


def random_erasing(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Fill a box of each image, with the given probability, with noise that is uniform in every pixel."""
    num_images, _, height, width = images.shape
    chosen = _uniform(num_images, generator) < probability
    erased = erasing_boxes(num_images, height, width, generator) & chosen[:, None, None]
    noise = torch.rand(images.shape, generator=generator, device=generator.device)
    return torch.where(erased[:, None], noise, images)


def mix(images: Tensor, targets: Tensor, recipe: Recipe, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mix images with their neighbour in the batch: MixUp (Zhang et al. 2018) or CutMix (Yun et al. 2019).

    Each image is mixed with probability `mix_probability`; where both kinds are on, `cutmix_share` of those get CutMix.
    The share that an image keeps is drawn from Beta(alpha, alpha); in CutMix it is then the share of pixels that really
    stayed.
    """
    num, _, height, width = images.shape
    use_cutmix = _uniform(num, generator) < _cutmix_share(recipe)
    mixed = _uniform(num, generator) < recipe.mix_probability
    ones = torch.ones(num, device=images.device)
    mixup_keep = _beta(recipe.mixup_alpha, num, generator) if recipe.mixup_alpha > 0 else ones
    cutmix_keep = _beta(recipe.cutmix_alpha, num, generator) if recipe.cutmix_alpha > 0 else ones
    row = torch.randint(height, (num,), generator=generator, device=generator.device)
    column = torch.randint(width, (num,), generator=generator, device=generator.device)
    inside = cutmix_boxes(cutmix_keep, row, column, height, width).float()
    outer = torch.where(mixed & ~use_cutmix, mixup_keep, 1.0)[:, None, None]  # an image's weight but in CutMix's box
    weight = outer - inside * (mixed & use_cutmix)[:, None, None]
    keep = weight.mean((1, 2))[:, None]
    return torch.lerp(images.roll(1, 0), images, weight[:, None]), torch.lerp(targets.roll(1, 0), targets, keep)


def _cutmix_share(recipe: Recipe) -> float:
    both = recipe.mixup_alpha > 0 and recipe.cutmix_alpha > 0
    return recipe.cutmix_share if both else float(recipe.cutmix_alpha > 0)


def _beta(alpha: float, num: int, generator: Generator) -> Tensor:
    """Draw Beta(alpha, alpha) from two gamma variates; both can underflow to 0 for a tiny alpha, which means 'keep'."""
    shape = torch.full((2, num), alpha, device=generator.device)
    first, second = torch._standard_gamma(shape, generator=generator)
    return torch.nan_to_num(first / (first + second), nan=1.0)


def _uniform(num: int, generator: Generator) -> Tensor:
    return torch.rand(num, generator=generator, device=generator.device)
