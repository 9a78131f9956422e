"""Random boxes of pixels for CutMix and erasing: one box an image, as masks (N, H, W) that are true inside."""

import math

import torch
from torch import Generator, Tensor

ERASED_AREA = (0.02, 0.2)  # share of the image
ERASED_ASPECT = (0.3, 3.3)  # height over width


def erasing_boxes(num_images: int, height: int, width: int, generator: Generator) -> Tensor:
    """Draw the boxes of random erasing (Zhong et al. 2020, https://arxiv.org/abs/1708.04896).

    The area is uniform, the aspect ratio log-uniform and the place uniform over those where the box fits. The paper
    draws again when a box is larger than the image; no box is in a square image, and elsewhere the side is cut off.
    """
    draws = torch.rand((4, num_images), generator=generator, device=generator.device)
    area = (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * draws[0]) * (height * width)
    aspect = ERASED_ASPECT[0] * torch.exp(math.log(ERASED_ASPECT[1] / ERASED_ASPECT[0]) * draws[1])
    box_height = (area * aspect).sqrt().round().clamp(1, height)
    box_width = (area / aspect).sqrt().round().clamp(1, width)
    top = (draws[2] * (height - box_height + 1)).floor()
    left = (draws[3] * (width - box_width + 1)).floor()
    return _mask(_span(top, top + box_height, height), _span(left, left + box_width, width))


def cutmix_boxes(keep: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Return the boxes of CutMix (Yun et al. 2019, https://arxiv.org/abs/1905.04899) around the pixels (row, column).

    A box has the image's shape and covers `1 - keep` (N,) of it, rounded down to whole pixels and cut off where it
    leaves the image; so what was really kept is up to the mask.
    """
    side = (1 - keep).clamp(min=0).sqrt()
    spans = []
    for centre, length in ((row, height), (column, width)):
        cut = (side * length).floor()
        spans.append(_span(centre - (cut / 2).floor(), centre + (cut / 2).ceil(), length))
    return _mask(*spans)


def _span(low: Tensor, high: Tensor, length: int) -> Tensor:
    position = torch.arange(length, device=low.device)
    return (position >= low[:, None]) & (position < high[:, None])


def _mask(rows: Tensor, columns: Tensor) -> Tensor:
    return rows[:, :, None] & columns[:, None, :]
