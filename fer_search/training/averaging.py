"""The moving average of a network's weights."""

import torch
from timm.utils import ModelEmaV3
from torch import nn


class AveragedWeights:
    """An exponential moving average of all of `model`'s state, as timm's ModelEmaV3 keeps it: at first with a decay of
    1 - step^(-2/3) if that is less than `decay`.

    What a step weighs is a tensor on the device, so that an update is the same sequence of kernels at every step and
    can be part of a CUDA graph; timm's is a number of Python's.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._timm = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.module = self._timm.module
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._averages, self._weights = _unzipped([pair for pair in pairs if pair[0].is_floating_point()])
        self._counts, self._counted = _unzipped([pair for pair in pairs if not pair[0].is_floating_point()])
        self._share = torch.ones((), device=self._averages[0].device)

    def begin_step(self, step: int) -> None:
        """Set what the update after step number `step`, from 1 on, weighs."""
        self._share.fill_(1 - self._timm.get_decay(step))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights as they are now."""
        change = torch._foreach_sub(self._weights, self._averages)
        torch._foreach_mul_(change, self._share)
        torch._foreach_add_(self._averages, change)
        if self._counts:
            torch._foreach_copy_(self._counts, self._counted)


def _unzipped(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return [first for first, _ in pairs], [second for _, second in pairs]
