"""Sharpness-aware minimisation around any optimizer.

SAM: Foret et al. 2021, https://arxiv.org/abs/2010.01412; ASAM: Kwon et al. 2021, https://arxiv.org/abs/2102.11600;
LookSAM: Liu et al. 2022, https://arxiv.org/abs/2203.02714.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LOOKSAM_ALPHA = 0.7
"""How much of the remembered flat direction a cheap step adds, relative to its own gradient: the paper's choice."""


class SharpnessAwareMinimizer:
    """Steps `optimizer` with the gradient taken at the worst point within `rho` of the weights.

    The learning rate schedule, the state and the state dict are those of `optimizer`. With `rho` 0 the step is the
    optimizer's own. LookSAM's cheap steps reuse what the last full step found; whoever takes them begins every stretch
    that can be resumed with a full step, so that there is nothing to store.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, rho: float, adaptive: bool = False, remember: bool = False
    ) -> None:
        self.optimizer = optimizer
        self.rho = rho
        self.adaptive = adaptive
        self.remember = remember  # for cheap steps to follow
        self.flat: list[Tensor] = []
        """The flat direction that the last full step found, where it is remembered."""

    def step(
        self, backward: Callable[[bool], Tensor], *, max_norm: float = 0.0, cheap: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Take one step.

        `backward(first_pass)` adds the gradients of the whole (accumulated) batch to `.grad` and returns its loss; both
        calls must see the same images, targets and dropout. A `cheap` step takes no second pass: it turns its gradient
        towards the flat direction of the last full step. Gradients are clipped to the global norm `max_norm` (0 is off)
        after the weights are back in place. Returns the loss of the first pass and the norm of the gradient that was
        applied, before clipping.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = backward(True)
        if self.rho > 0 and cheap:
            self._turn_to_flat()
        elif self.rho > 0:
            first = self._gradients() if self.remember else []
            with self._perturbed_weights():
                self.optimizer.zero_grad(set_to_none=True)
                backward(False)
            if self.remember:
                self._keep(_without_component(self._gradients(), first))
        norm = _norm(self._gradients())
        if max_norm > 0:
            nn.utils.clip_grads_with_norm_(self._trained(), max_norm, norm)
        self.optimizer.step()
        return loss, norm

    @contextmanager
    def _perturbed_weights(self) -> Iterator[None]:
        """Climb to the worst point in the neighbourhood; put the stored weights back, whatever happens in between.

        Subtracting the perturbation instead would leave a rounding error in the weights at every step.
        """
        with torch.no_grad():
            weights = self._trained()
            stored = [weight.clone() for weight in weights]
            ascent = self._gradients()
            if self.adaptive:
                sizes = list(torch._foreach_abs(weights))
                ascent = list(torch._foreach_mul(ascent, sizes))
            norm = _norm(ascent)
            if self.adaptive:
                ascent = list(torch._foreach_mul(ascent, sizes))
            ascent = list(torch._foreach_mul(ascent, self.rho / (norm + 1e-12)))
        try:
            with torch.no_grad():
                torch._foreach_add_(weights, ascent)
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, stored)

    def _keep(self, flat: list[Tensor]) -> None:
        """Remember in the same memory, where a CUDA graph of a cheap step looks for it."""
        if self.flat:
            torch._foreach_copy_(self.flat, flat)
        else:
            self.flat = flat

    def _turn_to_flat(self) -> None:
        assert self.flat, "a cheap step needs a full one before it, and remember"
        gradients = self._gradients()
        scale = LOOKSAM_ALPHA * _norm(gradients) / (_norm(self.flat) + 1e-12)
        torch._foreach_add_(gradients, torch._foreach_mul(self.flat, scale))

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._trained() if parameter.grad is not None]

    def _trained(self) -> list[Tensor]:
        """Return the parameters that have a gradient, which are those that the loss reaches."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]


def _norm(tensors: list[Tensor]) -> Tensor:
    """Return the norm of what is spread over many tensors: torch's `get_total_norm` first sorts them by device."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return norm


def _without_component(vector: list[Tensor], direction: list[Tensor]) -> list[Tensor]:
    """Return `vector` without its part along `direction`, both spread over many tensors."""
    dot = sum((a * b).sum() for a, b in zip(vector, direction, strict=True))
    share = dot / (sum((b * b).sum() for b in direction) + 1e-24)
    return [a - share * b for a, b in zip(vector, direction, strict=True)]


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the layers of `model` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]


@contextmanager
def frozen(layers: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Normalise by the batch without moving the running statistics, as SAM's second pass must."""
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
