"""What one optimizer step does: augmentation, SAM's passes over micro-batches, the update."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from fer_search.recipe import Recipe
from fer_search.training.augment import augment
from fer_search.training.dropout import PairedDropout
from fer_search.training.loss import class_weights, image_losses
from fer_search.training.model import EmotionNet
from fer_search.training.sam import SharpnessAwareMinimizer, batch_norms, frozen


class TrainingStep:
    """Trains `model` on some of the faces, uint8 `pixels` (N, H, W) or (N, H, W, 3), `labels` (N,) and `soft_labels`
    (N, classes) if there are any, all of it on one device.

    Nothing in it asks the device for a value, and what differs from step to step is in tensors (the images' indices, on
    a GPU the learning rates) and in the states of generators. So what a GPU does in one step, repeated, is another. All
    randomness is that of `generator` and of `dropout`.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: EmotionNet,
        optimizer: torch.optim.Optimizer,
        pixels: Tensor,
        labels: Tensor,
        *,
        soft_labels: Tensor | None,
        classes: Sequence[str],
        micro_batch_size: int,
    ) -> None:
        self.classes = tuple(classes)
        self.recipe, self.model, self.optimizer = recipe, model, optimizer
        self.pixels, self.labels, self.soft_labels = pixels, labels, soft_labels
        self.micro_batch_size = micro_batch_size
        self.class_weights = class_weights(labels, recipe.class_weight_power, len(self.classes))
        self.autocast = _autocast_of(recipe, pixels.device)
        self.generator = Generator(pixels.device)
        self.dropout = PairedDropout(pixels.device)
        self.batch_norms = batch_norms(model)
        self.sam = SharpnessAwareMinimizer(
            optimizer, rho=recipe.sam_rho, adaptive=recipe.sam_adaptive, remember=recipe.sam_interval > 1
        )

    @property
    def generators(self) -> list[Generator]:
        """What a step draws from, but for a CPU's dropout."""
        return [self.generator, *self.dropout.generators]

    @property
    def state(self) -> list[Tensor]:
        """What a step changes: the model's state and, once there has been a step, the optimizer's and SAM's."""
        optimizer = [each for state in self.optimizer.state.values() for each in state.values()]
        tensors = [*self.model.state_dict().values(), *optimizer, *self.sam.flat]
        return [each for each in tensors if isinstance(each, Tensor)]

    def __call__(self, indices: Tensor, *, cheap: bool) -> tuple[Tensor, Tensor]:
        """Take a step on the images at `indices`; return SAM's first loss and the norm of the applied gradient.

        A `cheap` step is LookSAM's, of one pass.
        """
        soft_labels = None if self.soft_labels is None else self.soft_labels[indices]
        images, targets = augment(
            self.pixels[indices], self.labels[indices], self.classes, self.recipe, self.generator, soft_labels
        )
        backward = partial(self.backward, images, targets)
        return self.sam.step(backward, max_norm=self.recipe.grad_clip, cheap=cheap)

    def backward(self, images: Tensor, targets: Tensor, first_pass: bool) -> Tensor:
        """Add the gradients of one batch, micro-batch by micro-batch, and return its mean loss.

        The last batch of an epoch is cut evenly, and an odd one not into pairs, since a micro-batch of one image has no
        batch statistics. Every forward opens autocast anew: its cache of cast weights would hide SAM's perturbation
        from the second pass.
        """
        total = torch.zeros((), device=images.device)
        chunks = max(1, min(math.ceil(len(images) / self.micro_batch_size), len(images) // 2))
        with nullcontext() if first_pass else frozen(self.batch_norms):
            for x, t in zip(images.tensor_split(chunks), targets.tensor_split(chunks), strict=True):
                x = x.contiguous(memory_format=torch.channels_last)
                with self.dropout.drawing(first_pass=first_pass), self.autocast():
                    outputs = self.model.outputs(x)
                loss = image_losses(outputs, t, self.class_weights, self.recipe).sum() / len(images)
                torch.autograd.backward(loss)
                total += loss.detach()
        return total


def precision_of(recipe: Recipe, device: torch.device) -> str:
    """Return the precision that `recipe` means on `device`: `bf16` or `fp32`."""
    if recipe.precision != "auto":
        return recipe.precision
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


def _autocast_of(recipe: Recipe, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    enabled = precision_of(recipe, device) == "bf16"
    return partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=enabled)
