"""What a trained network is shown of a face, and how its answers become one: views, their mean, a temperature,
a shift.

Test-time augmentation shows a face in five fixed ways, so a prediction is the same every time. The mean is that of the
probabilities.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

SHIFT = 2  # pixels
ZOOM = 1.1

View = Callable[[Tensor], Tensor]
"""Turns images (N, C, H, W) in [0, 1] into such images."""


def as_images(pixels: Tensor) -> Tensor:
    """Return uint8 pixels, (N, H, W) grey or (N, H, W, 3), as float images (N, C, H, W) from 0 to 255."""
    return (pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.movedim(-1, 1)).float()


def identity(images: Tensor) -> Tensor:
    """Return the images as they are."""
    return images


def mirrored(images: Tensor) -> Tensor:
    """Swap left and right."""
    return images.flip(-1)


def shifted_left(images: Tensor) -> Tensor:
    """Move the content two pixels to the left, black coming in at the edge as it does in training."""
    return nn.functional.pad(images[..., SHIFT:], (0, SHIFT))


def shifted_right(images: Tensor) -> Tensor:
    """Move the content two pixels to the right, black coming in at the edge as it does in training."""
    return nn.functional.pad(images[..., :-SHIFT], (SHIFT, 0))


def zoomed(images: Tensor) -> Tensor:
    """Enlarge the content by 1.1 around the centre, with bilinear interpolation."""
    rows, columns = (_zoom_weights(size, images) for size in images.shape[-2:])
    return rows @ images @ columns.T


VIEWS: dict[str, View] = {
    "identity": identity,
    "mirrored": mirrored,
    "shifted_left": shifted_left,
    "shifted_right": shifted_right,
    "zoomed": zoomed,
}
VIEW_SETS: dict[str, tuple[str, ...]] = {"plain": ("identity",), "tta": tuple(VIEWS)}


class PredictionNet(nn.Module):
    """A trained network as it is used: softmax of its output are the final probabilities.

    The output (N, classes) is the network's own divided by the temperature for one view, and for several the logarithm
    of the mean probability divided by the temperature; then `shift` (classes,) is added, if there is one.
    """

    shift: Tensor | None

    def __init__(
        self, network: nn.Module, *, views: Sequence[str], temperature: float, shift: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.views = tuple(views)
        self.temperature = temperature
        self.register_buffer("shift", None if shift is None else torch.tensor(shift), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W) in [0, 1]."""
        # One pass over all views: an exported file then holds the network once.
        seen = torch.cat([VIEWS[name](images) for name in self.views])
        logits = self.network(seen).unflatten(0, (len(self.views), -1))
        combined = combine(logits) / self.temperature
        return combined if self.shift is None else combined + self.shift


def combine(logits: Tensor) -> Tensor:
    """Return logits (N, C) whose softmax is the mean of the views' probabilities, for logits (views, N, C)."""
    if len(logits) == 1:
        return logits[0]
    return torch.logsumexp(logits.log_softmax(-1), 0) - math.log(len(logits))


def _zoom_weights(size: int, like: Tensor) -> Tensor:
    """Return the weight (size, size) of every input position in every output position of a line."""
    positions = torch.arange(size, device=like.device, dtype=like.dtype)
    centre = (size - 1) / 2
    sources = (positions - centre) / ZOOM + centre
    return (1 - (sources[:, None] - positions[None, :]).abs()).clamp(min=0)
