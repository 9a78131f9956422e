"""Sharpness-aware minimisation around any optimizer.

SAM: Foret et al. 2021, https://arxiv.org/abs/2010.01412; ASAM: Kwon et al. 2021, https://arxiv.org/abs/2102.11600.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class SharpnessAwareMinimizer:
    """Steps `optimizer` with the gradient taken at the worst point within `rho` of the weights.

    The learning rate schedule, the state and the state dict are those of `optimizer`; SAM has none of its own. With
    `rho` 0 the step is the optimizer's own.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, rho: float, adaptive: bool = False) -> None:
        self.optimizer = optimizer
        self.rho = rho
        self.adaptive = adaptive

    def step(self, backward: Callable[[bool], Tensor], *, max_norm: float = 0.0) -> tuple[Tensor, Tensor]:
        """Take one step.

        `backward(first_pass)` adds the gradients of the whole (accumulated) batch to `.grad` and returns its loss; both
        calls must see the same images, targets and dropout. Gradients are clipped to the global norm `max_norm` (0 is
        off) after the weights are back in place. Returns the loss of the first pass and the norm of the gradient that
        was applied, before clipping.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = backward(True)
        if self.rho > 0:
            with self._perturbed_weights():
                self.optimizer.zero_grad(set_to_none=True)
                backward(False)
        gradients = [parameter.grad for parameter in self._trained()]
        norm = nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
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
            ascent = [weight.grad for weight in weights if weight.grad is not None]
            if self.adaptive:
                sizes = list(torch._foreach_abs(weights))
                ascent = list(torch._foreach_mul(ascent, sizes))
            norm = nn.utils.get_total_norm(ascent)
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

    def _trained(self) -> list[Tensor]:
        """Return the parameters that have a gradient, which are those that the loss reaches."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]


@contextmanager
def frozen_batch_norm(model: nn.Module) -> Iterator[None]:
    """Normalise by the batch without moving the running statistics, as SAM's second pass must."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
