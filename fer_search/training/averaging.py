"""The moving average of a network's weights."""

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn


class AveragedWeights:
    """An exponential moving average of all of `model`'s state, as timm's ModelEmaV3 keeps it: at first with a decay of
    1 - step^(-2/3) if that is less than `decay`.

    timm collects the tensors of both networks anew at every update, which takes longer than to average them; the model
    keeps its tensors, so once is enough.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._timm = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.module = self._timm.module
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._averages, self._weights = _unzipped([pair for pair in pairs if pair[0].is_floating_point()])
        self._counts, self._counted = _unzipped([pair for pair in pairs if not pair[0].is_floating_point()])

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's weights as they are after step number `step` of the training, from 1 on."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - self._timm.get_decay(step))
        if self._counts:
            torch._foreach_copy_(self._counts, self._counted)


def _unzipped(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [first for first, _ in pairs], [second for _, second in pairs]
