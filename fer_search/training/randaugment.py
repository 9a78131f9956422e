"""RandAugment for batches of faces: which operations, and each of them as one tensor operation on all images.

Every image draws its own parameters, and all images go through the same fixed sequence of tensor operations, with
amounts that leave an image as it is where an operation was not drawn. So nothing here waits for the device, and the
random draws do not depend on the pixels. Images are float tensors (N, C, H, W) in [0, 1]; geometry is one resampling.
The channels of a colour image share one tone curve, made of all their values, so that grey stays grey.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

# What may be done to a face, and how far at full magnitude. Solarize and invert are left out: a half-negative face is
# no face that anyone will meet.
MAX_ROTATION = 30.0  # degrees
MAX_SHEAR = 0.3
MAX_TRANSLATION = 0.25  # of the image's side
MAX_ENHANCEMENT = 0.9  # brightness, contrast and sharpness lie in 1 +- this
MAX_POSTERIZATION = 4  # bits of the 8 that are dropped
OPERATIONS = (
    "identity", "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
    "brightness", "contrast", "sharpness", "posterize", "autocontrast", "equalize",
)  # fmt: skip


def draw_operations(chance: Tensor, num_operations: int, strength: float, generator: Generator) -> dict[str, Tensor]:
    """Draw RandAugment's operations (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719) for a batch.

    Each image gets them with its own `chance` (N,), else none; what is drawn does not depend on the chance. No
    operation is drawn twice for an image: two rotations could add up to more than a face stands. Returns for every
    operation its signed amount (N,) as a share of the full magnitude: 0 where it was not drawn, else +-strength.
    """
    shape = (len(OPERATIONS), len(chance))
    chosen = torch.rand(len(chance), generator=generator, device=generator.device) < chance
    rank = torch.rand(shape, generator=generator, device=generator.device).argsort(0).argsort(0)
    sign = torch.randint(0, 2, shape, generator=generator, device=generator.device) * 2.0 - 1
    amounts = (rank < num_operations) * chosen * sign * strength
    return dict(zip(OPERATIONS, amounts.unbind(), strict=True))


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
    x_by_x, x_by_y = cos + sin * shear_y, cos * shear_x + sin
    y_by_x, y_by_y = -sin + cos * shear_y, -sin * shear_x + cos
    x_by_1 = -(x_by_x * move_x + x_by_y * move_y)
    y_by_1 = -(y_by_x * move_x + y_by_y * move_y)
    # torch counts in half sides, so lengths along one axis are rescaled where they feed the other.
    rows = [
        torch.stack([x_by_x, x_by_y * (height / width), x_by_1 * (2 / width)], 1),
        torch.stack([y_by_x * (width / height), y_by_y, y_by_1 * (2 / height)], 1),
    ]
    theta = torch.stack(rows, 1)
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
    return (images * factor.clamp(min=0)[:, None, None, None]).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its mean grey: factor (N,) 0 is flat, 1 is unchanged."""
    weight = factor.clamp(min=0)[:, None, None, None]
    return (images * weight).add_(images.mean((1, 2, 3), keepdim=True) * (1 - weight)).clamp_(0, 1)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with a smoothed copy: factor (N,) 0 is smooth, 1 is unchanged, 2 is sharp. Edges stay."""
    # Pillow's kernel: weight 5 in the middle, 1 around it. On a CPU a pooling takes ten times as long as these sums.
    inner = images[..., 1:-1, 1:-1]
    rows = (images[..., :-2, :] + images[..., 1:-1, :]).add_(images[..., 2:, :])
    around = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    smooth = around.add_(inner, alpha=4).div_(13)
    changed = images.clone()
    changed[..., 1:-1, 1:-1] = smooth.lerp_(inner, factor.clamp(min=0)[:, None, None, None])
    return changed.clamp_(0, 1)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the given number of bits (N,) of each image's 8; 8 leaves it unchanged."""
    levels = torch.exp2(bits.clamp(min=1))[:, None, None, None]
    coarse = torch.minimum((images * levels).floor_(), levels - 1).div_(levels)
    return _where(bits < 8, coarse, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each image to the full range; a constant image stays as it is."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    span = high - low
    stretches = span > 0
    return (images - torch.where(stretches, low, 0.0)).div_(torch.where(stretches, span, 1.0))


def equalize(images: Tensor) -> Tensor:
    """Flatten each image's histogram by the rule of Pillow's `ImageOps.equalize`, on 256 levels."""
    values = (images * 255).round_().long().flatten(1)
    one = torch.ones((), device=images.device).expand(values.shape)
    histogram = torch.zeros(len(images), 256, device=images.device).scatter_add_(1, values, one)
    # Pillow leaves the brightest occupied level out of the step; a step of 0 leaves the image unchanged.
    brightest = histogram.gather(1, values.amax(1, keepdim=True))
    step = ((histogram.sum(1, keepdim=True) - brightest) / 255).floor()
    below = histogram.cumsum(1) - histogram
    table = ((below + (step / 2).floor()) / step.clamp(min=1)).floor().clamp(0, 255) / 255
    flat = table.gather(1, values).reshape(images.shape)
    return _where(step[:, 0] > 0, flat, images)


def _where(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return the new image where it was chosen: `lerp` is exact at 0 and 1, and on a CPU faster than `where`."""
    return torch.lerp(old, new, chosen.float()[:, None, None, None])
