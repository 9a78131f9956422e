import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fer_search.data.faces import EMOTIONS
from fer_search.errors import InvalidInput
from fer_search.journal import reproducible
from fer_search.training import step as step_module
from fer_search.training.augment import augment
from fer_search.training.objective import TrainingObjective
from fer_search.training.trainer import Diverged, Trainer

CPU = torch.device("cpu")


def curve(trainer):
    return [reproducible(report.metrics) for report in trainer]


def plain(small, **changes):
    """A recipe without any randomness between images and weights."""
    off = {
        "dropout": 0.0, "drop_path": 0.0, "flip_probability": 0.0, "shift_pixels": 0, "randaugment_magnitude": 0.0,
        "mixup_alpha": 0.0, "cutmix_alpha": 0.0,
    }  # fmt: skip
    return small.replace({**off, **changes})


@pytest.mark.parametrize("sam_interval", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(small, fit, validation, tmp_path, sam_interval):
    recipe, fit = small.replace({"epochs": 3, "sam_interval": sam_interval}), fit.take(np.arange(70))
    whole = Trainer(recipe, fit, validation, device=CPU)
    expected = curve(whole)

    first = Trainer(recipe, fit, validation, device=CPU)
    for report in itertools.islice(first, 2):
        report.save(tmp_path)
    torch.manual_seed(123)  # what a new process has drawn before must not matter
    torch.rand(7)
    second = Trainer(recipe, fit, validation, device=CPU)
    second.resume(tmp_path)
    assert curve(second) == expected[2:]
    for ours, theirs in ((second.model, whole.model), (second.ema.module, whole.ema.module)):
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_every_technique_on_a_run_resumed_at_any_epoch_equals_an_uninterrupted_one(
    small, fit, validation, tmp_path, precision
):
    """Also where the process has served other trainings: with other threads, in another precision, with gradients."""
    recipe = small.replace(
        {
            "fusion_width": 16, "se_attention": True, "cbam_attention": True, "coordinate_attention": True,
            "self_attention_heads": 2, "pyramid_pooling": True, "emotion_heads_weight": 0.3, "auxiliary_weight": 0.3,
            "optimizer": "adamw", "backbone_lr_scale": 0.5, "class_weight_power": 0.5, "erasing_probability": 0.5,
            "sam_adaptive": True, "sam_interval": 2, "epochs": 3, "restarts": [1], "batch_size": 4, "accumulation": 2,
            "pct_start": 0.6, "precision": precision,
        }
    )  # fmt: skip
    fit, validation = fit.take(np.arange(17)), validation.take(np.arange(20))  # two steps an epoch
    objective = TrainingObjective(fit, validation, device="cpu", threads=1)
    parameters, threads = recipe.model_dump(), torch.get_num_threads()
    try:
        expected, whole = [], None
        for report in objective(parameters, None):
            (tmp_path / str(len(expected))).mkdir()
            report.save(tmp_path / str(len(expected)))
            expected.append(reproducible(report.metrics))
            whole = report.trainer
        other = TrainingObjective(fit, validation, device="cpu", threads=2)
        next(other({**parameters, "precision": "bf16" if precision == "fp32" else "fp32"}, None))
        for epoch in range(len(expected) - 1):
            reports = list(objective(parameters, tmp_path / str(epoch)))
            assert [reproducible(report.metrics) for report in reports] == expected[epoch + 1 :]
            assert_same(reports[-1].trainer.state_dict(), whole.state_dict())
    finally:
        torch.set_num_threads(threads)


def assert_same(ours, theirs):
    """The same numbers wherever in the two nested structures there are some."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(ours, (list, tuple)):
        for mine, yours in zip(ours, theirs, strict=True):
            assert_same(mine, yours)
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


def test_a_training_does_not_touch_the_process_wide_random_state(small, fit, validation):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    curve(Trainer(small.replace({"epochs": 1}), fit, validation, device=CPU))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.usefixtures("two_threads")
def test_the_seed_alone_decides_the_curve(small, fit, validation):
    first, second, other = (
        curve(Trainer(small.replace({"seed": seed}), fit, validation, device=CPU)) for seed in (0, 0, 1)
    )
    assert first == second
    assert other != first


@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_accumulating_2_x_32_equals_1_x_64_without_batch_norm(small, fit, validation, rho):
    settings = {
        "backbone": "test_efficientnet_ln", "fusion_width": 0, "dropout": 0.0, "drop_path": 0.0, "sam_rho": rho,
        "epochs": 2,
    }  # fmt: skip
    trainers = [
        Trainer(small.replace({**settings, **shape}), fit, validation, device=CPU)
        for shape in ({"batch_size": 32, "accumulation": 2}, {"batch_size": 64, "accumulation": 1})
    ]
    curves = [curve(trainer)[0] for trainer in trainers]
    assert curves[0]["train_loss"] == pytest.approx(curves[1]["train_loss"], rel=1e-5)
    for a, b in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("adaptive", "rho"), [(False, 0.1), (True, 0.5)])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(32, 1), (16, 2)])
def test_one_epoch_equals_a_loop_written_by_hand(small, fit, validation, adaptive, rho, batch_size, accumulation):
    """SGD, SAM, dropout, label smoothing, clipping and OneCycle, each step spelled out with torch's own parts."""
    recipe = plain(
        small, fusion_width=0, emotion_heads_weight=0.0, auxiliary_weight=0.0, class_weight_power=0.0, dropout=0.4,
        epochs=2, sam_rho=rho, sam_adaptive=adaptive, grad_clip=0.5, ema_decay=0.0, batch_size=batch_size,
        accumulation=accumulation,
    )  # fmt: skip
    fit = fit.take(np.arange(88))
    trainer = Trainer(recipe, fit, validation, device=CPU)
    model = Trainer(recipe, fit, validation, device=CPU).model.train()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        ],
        lr=1.0, momentum=0.9, nesterov=True,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, total_steps=2 * 3, div_factor=2.0, final_div_factor=1e4, cycle_momentum=False
    )
    seeds = np.random.SeedSequence([0, 0]).generate_state(2, np.uint64)
    order = torch.randperm(88, generator=torch.Generator().manual_seed(int(seeds[0] >> 1)))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]

    def mean_loss(micro_batches, dropout_seed):
        """Add the gradients of a batch to what is there and return its mean loss."""
        num_images = sum(map(len, micro_batches))
        total = 0.0
        for number, indices in enumerate(micro_batches):
            x = torch.tensor(fit.pixels)[indices].unsqueeze(1) / 255
            y = torch.tensor(fit.labels)[indices]
            with torch.random.fork_rng():
                torch.manual_seed(dropout_seed + number)
                logits = model(x)
            loss = F.cross_entropy(logits, y, label_smoothing=0.1, reduction="sum") / num_images
            loss.backward()
            total += float(loss.detach())
        return total

    losses = []
    for step, batch in enumerate((order[:32], order[32:64], order[64:])):  # of 32, 32 and 24
        micro_batches = batch.reshape(accumulation, -1)
        dropout_seed = int(seeds[1] >> 1) + step * accumulation
        losses.append(mean_loss(micro_batches, dropout_seed))
        stored = [p.detach().clone() for p in parameters]
        statistics = [(m.running_mean.clone(), m.running_var.clone()) for m in norms]
        with torch.no_grad():
            scales = [p.abs() if adaptive else torch.ones_like(p) for p in parameters]
            norm = torch.sqrt(sum(((s * p.grad) ** 2).sum() for s, p in zip(scales, parameters, strict=True)))
            for s, p in zip(scales, parameters, strict=True):
                p += rho * s**2 * p.grad / (norm + 1e-12)
        optimizer.zero_grad()
        mean_loss(micro_batches, dropout_seed)
        with torch.no_grad():
            for p, value in zip(parameters, stored, strict=True):
                p.copy_(value)
            for m, (mean, variance) in zip(norms, statistics, strict=True):
                m.running_mean.copy_(mean)
                m.running_var.copy_(variance)
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    report = next(iter(trainer))
    assert report.metrics["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    state = model.state_dict()
    for name, value in trainer.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, state[name], rtol=1e-3, atol=1e-5, msg=name)


def test_dropout_draws_the_same_units_in_both_passes_of_sam(small, fit, validation):
    seen = []
    trainer = Trainer(small.replace({"dropout": 0.5, "epochs": 1}), fit, validation, device=CPU)
    images, targets = augment(trainer.pixels[:32], trainer.labels[:32], EMOTIONS, trainer.recipe, torch.Generator())
    trainer.model.dropout.register_forward_hook(lambda *_: seen.append(torch.rand(4)))
    trainer.step.dropout.seed(7)
    trainer.step.dropout.begin_step()
    trainer.step.backward(images, targets, True)
    trainer.step.backward(images, targets, False)
    first, second = seen[:2], seen[2:]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


def test_under_autocast_the_second_pass_of_sam_sees_the_perturbed_weights(small, fit, validation):
    losses = []
    trainer = Trainer(plain(small, precision="bf16", sam_rho=0.5), fit, validation, device=CPU)
    original = trainer.step.backward
    trainer.step.backward = lambda *arguments: losses.append(original(*arguments)) or losses[-1]
    next(iter(trainer))
    assert all(float(second) > float(first) for first, second in zip(losses[::2], losses[1::2], strict=True))


def test_looksam_takes_the_second_pass_at_every_so_many_steps_of_an_epoch(small, fit, validation):
    passes = []
    recipe = plain(small, batch_size=16, accumulation=1, sam_interval=3)
    trainer = Trainer(recipe, fit, validation, device=CPU)
    original = trainer.step.backward
    trainer.step.backward = lambda *arguments: passes.append(arguments[-1]) or original(*arguments)
    curve(trainer)
    epoch = [True, False, True, True] * 2 + [True, False]  # 7 steps: the first, fourth and seventh are full
    assert passes == epoch * 2


def test_one_image_that_is_left_over_goes_to_the_batch_before_it(small, fit, validation, monkeypatch):
    """Alone it would have no batch statistics."""
    sizes = []

    def watched(pixels, *others):
        sizes.append(len(pixels))
        return augment(pixels, *others)

    monkeypatch.setattr(step_module, "augment", watched)
    curve(Trainer(small.replace({"epochs": 2}), fit.take(np.arange(97)), validation, device=CPU))
    assert sizes == [32, 32, 33] * 2


def test_batch_norm_statistics_move_once_per_micro_batch(small, fit, validation):
    trainer = Trainer(plain(small, batch_size=25, accumulation=2, sam_rho=0.1), fit, validation, device=CPU)
    next(iter(trainer))
    counts = {int(v) for k, v in trainer.model.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counts == {4}


def test_a_loss_that_is_not_finite_ends_the_run_at_that_step_with_its_number(small, fit, validation, monkeypatch):
    calls = itertools.count(1)

    def spoiled(*arguments):
        images, targets = augment(*arguments)
        return (images * float("nan") if next(calls) == 3 else images), targets

    monkeypatch.setattr(step_module, "augment", spoiled)
    with pytest.raises(Diverged, match=r"the loss of step 3 \(epoch 1\) is nan"):
        curve(Trainer(small, fit, validation, device=CPU))


def test_a_checkpoint_refuses_another_recipe_and_names_what_differs(small, fit, validation, tmp_path):
    trainer = Trainer(small, fit, validation, device=CPU)
    next(iter(trainer)).save(tmp_path)
    other = Trainer(small.replace({"max_lr": 0.5}), fit, validation, device=CPU)
    with pytest.raises(InvalidInput, match=r"max_lr: must be 0.5, as in this run, got 0.01"):
        other.resume(tmp_path)


def test_averaged_weights_equal_the_running_average_computed_by_hand(small, fit, validation):
    trainer = Trainer(
        plain(small, sam_rho=0.0, ema_decay=0.5, batch_size=50, accumulation=1), fit, validation, device=CPU
    )
    name = "classifier.weight"
    average = None
    original = trainer.ema.update

    def update(step):
        nonlocal average
        # timm's warm-up: the first step copies, later ones keep 1 - (step)^(-2/3), at most ema_decay
        decay = 0.0 if step <= 1 else min(0.5, 1 - step ** (-2 / 3))
        value = trainer.model.state_dict()[name].clone()
        average = value if average is None else average * decay + value * (1 - decay)
        original(step)

    trainer.ema.update = update
    curve(trainer)
    torch.testing.assert_close(trainer.ema.module.state_dict()[name], average)


def test_every_parameter_gets_a_gradient_and_is_trained(small, fit, validation):
    trainer = Trainer(small.replace({"epochs": 1, "drop_path": 0.0}), fit, validation, device=CPU)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    next(iter(trainer))
    assert [name for name, p in trainer.model.named_parameters() if torch.equal(p, before[name])] == []


def test_soft_labels_without_weight_change_no_bit_and_weight_without_them_is_an_error(small, fit, validation):
    soft = np.random.default_rng(0).dirichlet(np.ones(7), len(fit)).astype(np.float32)
    trainers = [Trainer(small, faces, validation, device=CPU) for faces in (fit, replace(fit, soft_labels=soft))]
    assert curve(trainers[0]) == curve(trainers[1])
    first, second = (trainer.model.state_dict() for trainer in trainers)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    with pytest.raises(InvalidInput, match="recipe: soft_label_weight: must be 0 where the images have no soft labels"):
        Trainer(small.replace({"soft_label_weight": 0.1}), fit, validation, device=CPU)
