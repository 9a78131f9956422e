"""Batch augmentation on the device: pure functions of (images, parameters, generator).

Every image draws its own parameters, and all images go through the same fixed sequence of tensor operations, with
parameters that leave an image as it is where an operation was not drawn. So nothing here waits for the device, and the
random draws do not depend on the pixels. Images are float tensors (N, 1, H, W) in [0, 1]; geometry is one resampling.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fer_search.recipe import Recipe

# What RandAugment may do to a face, and how far at full magnitude. Solarize and invert are left out: a half-negative
# face is no face that anyone will meet.
MAX_ROTATION = 30.0  # degrees
MAX_SHEAR = 0.3
MAX_TRANSLATION = 0.25  # of the image's side
MAX_ENHANCEMENT = 0.9  # brightness, contrast and sharpness lie in 1 +- this
MAX_POSTERIZATION = 4  # bits of the 8 that are dropped
OPERATIONS = (
    "identity", "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
    "brightness", "contrast", "sharpness", "posterize", "autocontrast", "equalize",
)  # fmt: skip


def augment(pixels: Tensor, labels: Tensor, recipe: Recipe, generator: Generator) -> tuple[Tensor, Tensor]:
    """Turn uint8 pixels (N, H, W) and labels (N,) into training images (N, 1, H, W) in [0, 1] and targets (N, 7).

    Rows of the targets sum to 1; label smoothing is not in them yet. `generator` lives on the device of the pixels.
    """
    images = pixels.unsqueeze(1).float() / 255
    images = random_flip(images, recipe.flip_probability, generator)
    shift = random_shift(len(images), recipe.shift_pixels, generator)
    if recipe.randaugment_magnitude > 0:
        amounts = draw_operations(
            len(images), recipe.randaugment_operations, recipe.randaugment_magnitude / 30, generator
        )
        images = warp(images, amounts, shift)
        images = recolor(images, amounts)
    elif recipe.shift_pixels > 0:
        images = warp(images, {}, shift)
    targets = F.one_hot(labels, 7).float()
    if recipe.mixup_alpha > 0 or recipe.cutmix_alpha > 0:
        images, targets = mix(images, targets, recipe, generator)
    return images, targets


def smooth_labels(targets: Tensor, smoothing: float) -> Tensor:
    """Spread `smoothing` of the probability mass of each row evenly over all classes (Szegedy et al. 2016)."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


def random_flip(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Mirror each image left to right with the given probability."""
    chosen = _uniform(len(images), generator) < probability
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def random_shift(num_images: int, shift_pixels: int, generator: Generator) -> Tensor:
    """Draw whole-pixel shifts (N, 2), x and y, evenly from -shift_pixels to shift_pixels."""
    size = (num_images, 2)
    return torch.randint(
        -shift_pixels, shift_pixels + 1, size, generator=generator, device=generator.device, dtype=torch.float32
    )


def draw_operations(num_images: int, num_operations: int, strength: float, generator: Generator) -> dict[str, Tensor]:
    """Draw RandAugment's operations (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719) for a batch.

    Returns for every operation its signed amount (N,) as a share of the full magnitude: 0 where it was not drawn,
    +-strength where it was drawn once, their sum where it was drawn more often.
    """
    shape = (num_operations, num_images)
    choice = torch.randint(len(OPERATIONS), shape, generator=generator, device=generator.device)
    sign = torch.randint(0, 2, shape, generator=generator, device=generator.device) * 2.0 - 1
    return {name: ((choice == i) * sign).sum(0) * strength for i, name in enumerate(OPERATIONS)}


def warp(images: Tensor, amounts: dict[str, Tensor], shift: Tensor) -> Tensor:
    """Rotate, shear and translate each image by its amounts and shift (N, 2) it in pixels, black coming in at the
    edges.

    Rotation is clockwise for a positive amount, as in torchvision's `affine`; all of it is one bilinear resampling.
    """
    height, width = images.shape[-2:]
    zero = torch.zeros(len(images), device=images.device)
    angle = torch.deg2rad(amounts.get("rotate", zero) * MAX_ROTATION)
    shear_x, shear_y = amounts.get("shear_x", zero) * MAX_SHEAR, amounts.get("shear_y", zero) * MAX_SHEAR
    move_x = amounts.get("translate_x", zero) * MAX_TRANSLATION * width + shift[:, 0]
    move_y = amounts.get("translate_y", zero) * MAX_TRANSLATION * height + shift[:, 1]
    cos, sin = torch.cos(angle), torch.sin(angle)
    # The grid maps output to input: input = rotate(-angle) @ shear @ (output - move), in pixels from the centre.
    matrix = torch.stack(
        [
            torch.stack([cos + sin * shear_y, cos * shear_x + sin], 1),
            torch.stack([-sin + cos * shear_y, -sin * shear_x + cos], 1),
        ],
        1,
    )
    offset = -(matrix @ torch.stack([move_x, move_y], 1)[:, :, None])
    scale = torch.tensor([width / 2, height / 2], device=images.device)
    theta = torch.cat([matrix * (scale[None, None, :] / scale[None, :, None]), offset / scale[None, :, None]], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def recolor(images: Tensor, amounts: dict[str, Tensor]) -> Tensor:
    """Change brightness, contrast, sharpness, bit depth and histogram of each image by its amounts."""
    factor = {name: (1 + amounts[name] * MAX_ENHANCEMENT) for name in ("brightness", "contrast", "sharpness")}
    images = adjust_brightness(images, factor["brightness"])
    images = adjust_contrast(images, factor["contrast"])
    images = adjust_sharpness(images, factor["sharpness"])
    images = posterize(images, 8 - (amounts["posterize"].abs() * MAX_POSTERIZATION).round())
    images = _where(amounts["autocontrast"] != 0, autocontrast(images), images)
    return _where(amounts["equalize"] != 0, equalize(images), images)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply each image by its factor (N,)."""
    return (images * factor.clamp(min=0)[:, None, None, None]).clamp(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its mean grey: factor (N,) 0 is flat, 1 is unchanged."""
    return _blend(images, images.mean((1, 2, 3), keepdim=True), factor)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with a smoothed copy: factor (N,) 0 is smooth, 1 is unchanged, 2 is sharp. Edges stay."""
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=images.device) / 13
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(images, kernel[None, None])
    return _blend(images, smooth, factor)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the given number of bits (N,) of each image's 8; 8 leaves it unchanged."""
    levels = torch.exp2(bits.clamp(min=1))[:, None, None, None]
    coarse = torch.minimum((images * levels).floor(), levels - 1) / levels
    return _where(bits < 8, coarse, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each image to the full range; a constant image stays as it is."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (images - low) / span.clamp(min=1e-12), images)


def equalize(images: Tensor) -> Tensor:
    """Flatten each image's histogram by the rule of Pillow's `ImageOps.equalize`, on 256 levels."""
    values = (images * 255).round().long().flatten(1)
    histogram = torch.zeros(len(images), 256, device=images.device).scatter_add_(
        1, values, torch.ones_like(values, dtype=torch.float32)
    )
    # Pillow leaves the brightest occupied level out of the step; a step of 0 leaves the image unchanged.
    brightest = histogram.gather(1, values.amax(1, keepdim=True))
    step = ((histogram.sum(1, keepdim=True) - brightest) / 255).floor()
    below = histogram.cumsum(1) - histogram
    table = ((below + (step / 2).floor()) / step.clamp(min=1)).floor().clamp(0, 255)
    flat = (table.gather(1, values) / 255).reshape(images.shape)
    return _where(step[:, 0] > 0, flat, images)


def mix(images: Tensor, targets: Tensor, recipe: Recipe, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mix images with their neighbour in the batch: MixUp (Zhang et al. 2018) or CutMix (Yun et al. 2019).

    Each image is mixed with probability `mix_probability`; where both kinds are on, each gets half of those. The share
    that an image keeps is drawn from Beta(alpha, alpha); in CutMix it is then the share of pixels that really stayed.
    """
    num, _, height, width = images.shape
    use_cutmix = _uniform(num, generator) < _cutmix_share(recipe)
    mixed = _uniform(num, generator) < recipe.mix_probability
    ones = torch.ones(num, device=images.device)
    mixup_keep = _beta(recipe.mixup_alpha, num, generator) if recipe.mixup_alpha > 0 else ones
    cutmix_keep = _beta(recipe.cutmix_alpha, num, generator) if recipe.cutmix_alpha > 0 else ones
    box = _random_box(cutmix_keep, height, width, generator)
    weight = torch.where(use_cutmix[:, None, None], 1 - box, mixup_keep[:, None, None].expand_as(box))
    weight = torch.where(mixed[:, None, None], weight, torch.ones_like(weight))
    keep = weight.mean((1, 2))[:, None]
    images = images * weight[:, None] + images.roll(1, 0) * (1 - weight[:, None])
    return images, targets * keep + targets.roll(1, 0) * (1 - keep)


def _cutmix_share(recipe: Recipe) -> float:
    return 0.5 if recipe.mixup_alpha > 0 and recipe.cutmix_alpha > 0 else float(recipe.cutmix_alpha > 0)


def _random_box(keep: Tensor, height: int, width: int, generator: Generator) -> Tensor:
    """Draw a box (N, H, W) of ones that covers `1 - keep` of the image, cut off where it leaves it."""
    side = (1 - keep).clamp(min=0).sqrt()
    inside = []
    for length in (height, width):
        centre = (_uniform(len(keep), generator) * length).floor()
        half = ((side * length).floor() / 2).floor()
        position = torch.arange(length, device=keep.device)
        low, high = (centre - half)[:, None], (centre + half)[:, None]
        inside.append((position >= low) & (position < high))
    return (inside[0][:, :, None] & inside[1][:, None, :]).float()


def _beta(alpha: float, num: int, generator: Generator) -> Tensor:
    """Draw Beta(alpha, alpha) from two gamma variates; both can underflow to 0 for a tiny alpha, which means 'keep'."""
    shape = torch.full((2, num), alpha, device=generator.device)
    first, second = torch._standard_gamma(shape, generator=generator)
    return torch.nan_to_num(first / (first + second), nan=1.0)


def _uniform(num: int, generator: Generator) -> Tensor:
    return torch.rand(num, generator=generator, device=generator.device)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    weight = factor.clamp(min=0)[:, None, None, None]
    return (images * weight + other * (1 - weight)).clamp(0, 1)


def _where(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], new, old)
