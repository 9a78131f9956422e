"""Logit adjustment: a shift of a trained network's logits by how frequent the classes were. Loads no torch.

Menon et al. (2021, https://arxiv.org/abs/2007.07314): logits minus tau * log(prior). Their tau of 1 aims at the
balanced error; here tau is whichever is the most accurate on search-validation, also below 0, where class weights have
taught the network too much of rare classes. It is kept only where a paired test says so, which is seldom.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_search.training.paired import mcnemar_p

TAUS = tuple(tenths / 10 for tenths in sorted(range(-15, 16), key=abs))
"""What tau is chosen from; of equally accurate ones the first, which shifts least."""
SIGNIFICANT = 0.05


class TauChoice(NamedTuple):
    """The `tau` to use, which is 0 unless the most accurate one, `tried`, passed the test with this p-value."""

    tau: float
    tried: float
    p_value: float


def log_prior(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Return the logarithm (classes,) of each class's share of labels (N,), none of which may be without any."""
    found: NDArray[np.float64] = np.log(np.bincount(labels, minlength=num_classes) / len(labels))
    return found


def choose_tau(scores: NDArray[np.floating[Any]], labels: NDArray[np.int64], prior: NDArray[np.float64]) -> TauChoice:
    """Choose tau for scores (N, classes), which are logits at their temperature, and the `log_prior` (classes,).

    The p-value is McNemar's for "with and without it, equally many images are right". Since a tau looks better than it
    is on the images that chose it, each half of the images is judged at the tau that is best on the other half.
    """
    correct = np.stack([(scores - tau * prior).argmax(1) == labels for tau in TAUS])
    halves = np.arange(len(labels)) % 2
    adjusted, plain = np.zeros(len(labels), dtype=bool), correct[TAUS.index(0)]
    for half in (0, 1):
        best = correct[:, halves != half].sum(1).argmax()
        adjusted[halves == half] = correct[best, halves == half]
    gained, lost = int(np.sum(adjusted & ~plain)), int(np.sum(plain & ~adjusted))
    tried, p_value = TAUS[correct.sum(1).argmax()], mcnemar_p(gained, lost)
    return TauChoice(tried if p_value < SIGNIFICANT and gained > lost else 0.0, tried, p_value)
