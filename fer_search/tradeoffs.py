"""Accuracy against what the network costs where it is used: each trial's place, and who is on the Pareto front.

The costs follow from the recipe without any training: weights do not change them.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from fer_search.bundle import write_onnx
from fer_search.costs import COST_FIELDS, COSTS
from fer_search.data.faces import FER2013, ImageForm
from fer_search.errors import InvalidInput, problem
from fer_search.journal import TrialRecord
from fer_search.recipe import Recipe
from fer_search.training.model import build_model
from fer_search.training.model_summary import summarize
from fer_search.training.views import VIEW_SETS, PredictionNet
from fer_search.tuning.select import pareto_front

NUM_WARM_UP = 20
NUM_REPEATS = 200


@dataclass(frozen=True)
class Tradeoff:
    """A trial's value at the horizon and its network's cost; on the front, nobody is better in one and no worse in
    the other."""

    trial: int
    value: float
    cost: float
    on_front: bool


def num_parameters(recipe: Recipe, form: ImageForm) -> float:
    """Return how many parameters the network needs to predict; the heads that only training uses are left out."""
    return float(sum(part.num_parameters for part in summarize(recipe, form).parts if part.flops))


def flops(recipe: Recipe, form: ImageForm) -> float:
    """Return the FLOPs of predicting one face in one view; a multiplication and an addition are 2."""
    return float(summarize(recipe, form).total.flops)


def latency_ms(recipe: Recipe, form: ImageForm) -> float:
    """Return the milliseconds of one face in one view by the exported network: the median on one thread of this CPU."""
    network = PredictionNet(build_model(recipe, form), views=VIEW_SETS["plain"], temperature=1.0).eval()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        write_onnx(network, path, form)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    shape = (1, form.channels, form.size, form.size)
    images = {"images": np.random.default_rng(0).random(shape, dtype=np.float32)}
    seconds = []
    for _ in range(NUM_WARM_UP + NUM_REPEATS):
        start = time.perf_counter()
        session.run(None, images)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[NUM_WARM_UP:])


MEASURES: dict[str, Callable[[Recipe, ImageForm], float]] = {
    "parameters": num_parameters,
    "flops": flops,
    "latency": latency_ms,
}
"""What measures each of COSTS."""


def measure_of(cost: str, form: ImageForm = FER2013) -> Callable[[Mapping[str, Any]], float]:
    """Return what measures a cost, one of COSTS, of a complete parameter set, on images of this form."""
    measure = MEASURES[cost]
    return lambda parameters: measure(Recipe.build(parameters), form)


def tradeoffs(
    trials: Sequence[TrialRecord],
    *,
    metric: str,
    cost: str,
    source: object,
    form: ImageForm = FER2013,
    recorded: bool = False,
) -> list[Tradeoff]:
    """Return the trials that reached the horizon by their cost, one of COSTS, the cheapest first.

    Trials with the same network have one cost, measured once, or not at all where it is the one that their records
    hold. `source` is what a damaged recipe is reported under. Raises InvalidInput for another cost.
    """
    if cost not in COSTS:
        raise InvalidInput(problem("command line", "cost", f"must be one of {', '.join(COSTS)}", cost))
    complete = [trial for trial in trials if trial.state == "COMPLETE"]
    known: dict[tuple[object, ...], float] = {}
    costs = []
    for trial in complete:
        if recorded and trial.cost is not None:
            costs.append(trial.cost)
            continue
        recipe = Recipe.stored(trial.parameters, source=source)
        network = tuple(getattr(recipe, field) for field in COST_FIELDS)
        if network not in known:
            known[network] = MEASURES[cost](recipe, form)
        costs.append(known[network])
    values = [trial.epochs[-1][metric] for trial in complete]
    front = pareto_front(values, costs)
    found = [Tradeoff(t.number, v, c, f) for t, v, c, f in zip(complete, values, costs, front, strict=True)]
    return sorted(found, key=lambda each: (each.cost, -each.value, each.trial))
