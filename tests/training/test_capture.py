"""Steps as CUDA graphs: a GPU computes with them what it computes without. On a CPU: that a step asks for nothing."""

import logging
import re
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fer_search.journal import reproducible
from fer_search.training.capture import WARM_STEPS, CapturedStep
from fer_search.training.trainer import Trainer

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
EVERYTHING = {
    "fusion_width": 16, "se_attention": True, "cbam_attention": True, "coordinate_attention": True,
    "self_attention_heads": 2, "pyramid_pooling": True, "emotion_heads_weight": 0.3, "auxiliary_weight": 0.3,
    "class_weight_power": 0.5, "erasing_probability": 0.5, "batch_size": 8, "accumulation": 2, "epochs": 3,
}  # fmt: skip
CPU = torch.device("cpu")
ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "is_nonzero", "item")


class Watch(TorchDispatchMode):
    """Notes every operation for whose result a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if any(name in str(function) for name in ASKS):
            self.asked.append(str(function))
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("cheap", [False, True])
def test_a_step_asks_the_device_for_nothing(small, fit, validation, optimizer, cheap):
    """AdamW counts its steps on the device of its weights, which is this one: elsewhere it asks."""
    recipe = small.replace({**EVERYTHING, "optimizer": optimizer, "sam_interval": 2})
    trainer = Trainer(recipe, fit, validation, device=CPU)
    indices = torch.arange(16)
    trainer.step.dropout.begin_step()
    trainer.step(indices, cheap=False)
    trainer.step.dropout.begin_step()
    with Watch() as watch:
        trainer.step(indices, cheap=cheap)
        assert watch.asked == []
        bool(torch.ones(1).sum() > 0)
    assert watch.asked != []


class Tape(TorchDispatchMode):
    """Records what a CPU does in a step, and does it again on the same memory: what a CUDA graph is on a GPU.

    Numbers of Python's and seeds are what they were; what differs between steps has to be in tensors and generators.
    """

    def __init__(self, *, forget="nothing"):
        super().__init__()
        self.forget, self.calls = forget, []
        self.snapshot = None  # of what is recorded: unlike a GPU's, this recorder has to do it

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if self.forget not in str(function):
            self.calls.append((function, arguments, keywords or {}, result))
        return result

    def warm(self, take):
        return take(), ""

    def record(self, take, generators):
        self.calls, restore = [], self.snapshot()
        with self:
            found = take()
        restore()
        return found, partial(self.repeat, self.calls)

    @torch.no_grad()
    def repeat(self, calls):
        for function, arguments, keywords, result in calls:
            again = function(*arguments, **keywords)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Refusal(Tape):
    """Cannot record."""

    def record(self, take, generators):
        raise RuntimeError("operation not permitted when stream is capturing")


def recorded_curve(recipe, fit, validation, recorder):
    """A training on the CPU whose steps go through a recorder, or none; its rates are in tensors, as on a GPU."""
    trainer = Trainer(recipe, fit, validation, device=CPU)
    for group in trainer.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    if recorder is not None:
        trainer._take = CapturedStep(trainer.step, recorder)
        recorder.snapshot = trainer._take.snapshot
    return [reproducible(report.metrics) for report in trainer], trainer


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw", "restarts": [1]}, {"sam_interval": 3}, {"sam_rho": 0.0}, {"sam_adaptive": True}],
    ids=str,
)
def test_a_recorded_step_repeated_is_the_next_step(small, fit, validation, changes):
    """Bit for bit, with every technique on but dropout, which a CPU seeds."""
    epochs = 4 if "sam_interval" in changes else 2
    recipe = small.replace({**EVERYTHING, "dropout": 0.0, "drop_path": 0.0, "epochs": epochs, **changes})
    curve, trainer = recorded_curve(recipe, fit, validation, Tape())
    cheap = {True} if recipe.sam_interval > 1 else set()
    assert {kind[1] for kind in trainer._take.recorded} == {False, *cheap}
    assert curve == recorded_curve(recipe, fit, validation, None)[0]


@pytest.mark.parametrize("forget", ["aten.rand", "aten.sort", "_fused_sgd"])
def test_a_recording_that_leaves_something_out_is_found_out_and_not_used(small, fit, validation, forget, caplog):
    recipe = small.replace({"epochs": 3, "dropout": 0.0, "drop_path": 0.0})
    with caplog.at_level(logging.WARNING):
        curve, trainer = recorded_curve(recipe, fit, validation, Tape(forget=forget))
    assert re.search("a recorded step ends elsewhere, by .* of the step", caplog.text)
    assert not trainer._take.recorded
    assert curve == recorded_curve(recipe, fit, validation, None)[0]


def test_where_nothing_can_be_recorded_the_training_goes_on_step_by_step(small, fit, validation, caplog):
    with caplog.at_level(logging.WARNING):
        curve, _ = recorded_curve(small.replace({"epochs": 3}), fit, validation, Refusal())
    assert "kernel by kernel, which is slower: operation not permitted when stream is capturing" in caplog.text
    assert len(curve) == 3


@pytest.fixture
def exact():
    """Leave float32 what it is."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def trained(recipe, fit, validation, *, captured):
    trainer = Trainer(recipe, fit, validation, device=torch.device("cuda"), captured=captured)
    return trainer, [reproducible(report.metrics) for report in trainer]


def check_close(one, other, *, rel):
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        for name in ("train_loss", "gradient_norm", "learning_rate"):
            assert ours[name] == pytest.approx(theirs[name], rel=rel), name


@on_gpu
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw"}, {"sam_interval": 3}, {"sam_rho": 0.0}, {"sam_adaptive": True, "ema_decay": 0.0}],
    ids=str,
)
def test_captured_steps_learn_what_steps_launched_one_by_one_learn(small, fit, validation, changes):
    """Every technique on, in float32, as closely as two trainings come that launch them one by one: a GPU adds in
    another order each time, and what that does grows from step to step.
    """
    recipe = small.replace({**EVERYTHING, "precision": "fp32", **changes})
    (ours, curve), (theirs, expected), (twin, _) = (
        trained(recipe, fit, validation, captured=captured) for captured in (True, False, False)
    )
    assert ours._take.recorded
    assert curve[0]["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=1e-3)
    for kind in ("raw", "ema") if recipe.ema_decay else ("raw",):
        a, b, c = (
            torch.cat([v.flatten() for v in each.weights(kind).values() if v.is_floating_point()])
            for each in (ours, theirs, twin)
        )
        assert float((a - b).norm()) <= 10 * float((c - b).norm()) + 1e-3 * float(b.norm())


@on_gpu
@pytest.mark.usefixtures("exact")
def test_a_training_goes_on_from_a_gpu_on_a_gpu_and_on_a_cpu_and_back(small, fit, validation, tmp_path):
    recipe = small.replace({**EVERYTHING, "optimizer": "adamw", "precision": "fp32", "dropout": 0.0, "drop_path": 0.0})
    whole = Trainer(recipe, fit, validation, device=torch.device("cuda"))
    curve = []
    for report in whole:
        curve.append(reproducible(report.metrics))
        if len(curve) == 1:
            report.save(tmp_path)
    again = Trainer(recipe, fit, validation, device=torch.device("cuda"))
    again.resume(tmp_path)
    check_close([reproducible(report.metrics) for report in again], curve[1:], rel=2e-3)
    on_cpu = Trainer(recipe, fit, validation, device=CPU)
    on_cpu.resume(tmp_path)
    report = next(iter(on_cpu))
    assert report.metrics["learning_rate"] == pytest.approx(curve[1]["learning_rate"])
    report.save(tmp_path)
    back = Trainer(recipe, fit, validation, device=torch.device("cuda"))
    back.resume(tmp_path)
    assert next(iter(back)).metrics["learning_rate"] == pytest.approx(curve[2]["learning_rate"])


def waits(module, inputs, output):
    float(output[0].sum())


def waits_while_captured(module, inputs, output):
    if torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()


@on_gpu
@pytest.mark.parametrize("hook", [waits, waits_while_captured])
def test_a_network_that_cannot_be_captured_is_trained_all_the_same(small, fit, validation, hook, caplog):
    recipe = small.replace({"epochs": 3})
    _, expected = trained(recipe, fit, validation, captured=False)
    trainer = Trainer(recipe, fit, validation, device=torch.device("cuda"))
    trainer.model.backbone.register_forward_hook(hook)
    with caplog.at_level(logging.WARNING):
        curve = [reproducible(report.metrics) for report in trainer]
    assert "kernel by kernel" in caplog.text
    assert not trainer._take.recorded
    if hook is waits:
        check_close(curve, expected, rel=2e-2)
    else:
        check_close(curve, expected, rel=0.5)  # other randomness from the failure on
    assert torch.isfinite(torch.rand(3, device="cuda")).all()


@on_gpu
def test_memory_does_not_grow_with_the_epochs(small, fit, validation):
    recipe = small.replace({"epochs": WARM_STEPS + 5})
    trainer = Trainer(recipe, fit, validation, device=torch.device("cuda"))
    held = []
    for _ in trainer:
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
    assert held[-1] == held[-2] == held[-3]
