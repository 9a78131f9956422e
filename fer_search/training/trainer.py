"""A training run as a resumable iterator over its epochs.

Who drives the iterator decides what happens: plain training is a for loop, a search stops asking, a tracker passes the
reports on. All randomness comes from (recipe.seed, epoch), so between two epochs there is no generator to store, and a
resumed run continues bit for bit on a CPU.
"""

import gc
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_search.data.faces import Faces
from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe, soft_label_problems
from fer_search.training.allocator import keep_freed_memory, release_freed_memory
from fer_search.training.averaging import AveragedWeights
from fer_search.training.capture import CapturedStep, CudaGraphs
from fer_search.training.checkpoint import load_checkpoint, save_checkpoint
from fer_search.training.evaluation import epoch_metrics, predict_logits
from fer_search.training.memory import memory_errors
from fer_search.training.optimization import build_optimizer, build_schedule, place_optimizer
from fer_search.training.pretrained import initial_model
from fer_search.training.step import TrainingStep
from fer_search.training.usage import Usage, begin_training

CHECKPOINT_FORMAT = 3
MICRO_BATCH_SIZE = "micro_batch_size"
"""The metric that says how many images a forward pass had, where memory was short of the recipe's batch size."""


class Diverged(FloatingPointError):
    """The loss of a step was not finite."""


@dataclass(frozen=True)
class EpochReport:
    """What one finished epoch achieved; `save` stores the state after it, until the next report is asked for."""

    metrics: dict[str, float]
    trainer: "Trainer"

    def save(self, directory: Path) -> None:
        """Write a checkpoint of this epoch into `directory`."""
        save_checkpoint(self.trainer.state_dict(), directory)


class Trainer:
    """Trains the network of `recipe` on `fit` and measures it on `validation` after every epoch.

    Iterating yields one EpochReport per epoch that is still to do. Reported are `train_loss` (of SAM's first pass),
    `learning_rate`, `gradient_norm` (mean, of the applied gradients before clipping), `val_loss`, `val_accuracy`,
    `val_macro_f1` (and the accuracy of the averaged weights, `val_accuracy_ema`), `images_per_second`, `epoch_seconds`
    and those of Usage. Raises Diverged with the number of the first step whose loss is not finite: on a CPU at that
    step, on a GPU, which nothing asks within an epoch, at its end; and MemoryError where the training does not fit.

    On a GPU steps are `captured` as CUDA graphs, unless that is switched off: the same steps, launched one kernel after
    the other, are what captured ones are compared with.

    With a `micro_batch_size` below the recipe's batch size, an optimizer step sees the same images in more and smaller
    micro-batches. Only batch statistics and dropout are then drawn otherwise. Every epoch reports that size.
    """

    @memory_errors()
    def __init__(
        self,
        recipe: Recipe,
        fit: Faces,
        validation: Faces,
        *,
        device: torch.device,
        micro_batch_size: int | None = None,
        captured: bool = True,
    ) -> None:
        self.recipe = recipe
        self.device = device
        self.captured = captured and device.type == "cuda"
        if device.type == "cpu":
            keep_freed_memory()
        self.form = fit.form
        self.pixels, self.labels = _on_device(fit, device)
        self.soft_labels = _soft_labels(fit, recipe, device)
        self.validation_pixels, self.validation_labels = _on_device(validation, device)
        self.steps_per_epoch = num_steps(len(fit), recipe)
        self.restart(micro_batch_size or recipe.batch_size)

    @memory_errors()
    def restart(self, micro_batch_size: int) -> None:
        """Begin anew, as before the first epoch, with at most so many images in a forward pass."""
        recipe, device = self.recipe, self.device
        for held in ("step", "_take"):  # a graph holds the memory of all that is computed in it
            vars(self).pop(held, None)
        gc.collect()  # what trained before in this process, or failed to: an exception's traceback holds it in cycles
        release_freed_memory()
        begin_training()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        self.micro_batch_size = micro_batch_size
        self.epoch = 0
        self.model = initial_model(recipe, self.form).to(device).to(memory_format=torch.channels_last)
        self.ema = AveragedWeights(self.model, recipe.ema_decay) if recipe.ema_decay > 0 else None
        self.optimizer = build_optimizer(self.model, recipe)
        self.schedule = build_schedule(self.optimizer, recipe, self.steps_per_epoch)
        self._prepare()

    def _prepare(self) -> None:
        """Make the step anew, for an optimizer that is where the training begins or goes on."""
        place_optimizer(self.optimizer, self.device)
        self.step = TrainingStep(
            self.recipe,
            self.model,
            self.optimizer,
            self.pixels,
            self.labels,
            soft_labels=self.soft_labels,
            classes=self.form.classes,
            micro_batch_size=self.micro_batch_size,
        )
        self._take = CapturedStep(self.step, CudaGraphs(self.device)) if self.captured else self.step

    def __iter__(self) -> Iterator[EpochReport]:
        while self.epoch < self.recipe.epochs:
            start = time.perf_counter()
            usage = Usage(self.device)
            with memory_errors():
                metrics = self._train_epoch()
                usage.sample()
                seconds = time.perf_counter() - start
                self.epoch += 1
                metrics |= self._validate()
            metrics |= usage.metrics()
            if self.micro_batch_size < self.recipe.batch_size:
                metrics[MICRO_BATCH_SIZE] = float(self.micro_batch_size)
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise Diverged(f"{name} of epoch {self.epoch} is {value}")
            metrics["images_per_second"] = len(self.labels) / seconds
            metrics["epoch_seconds"] = time.perf_counter() - start
            yield EpochReport(metrics, self)

    def weights(self, kind: str) -> dict[str, Tensor]:
        """Return a copy on the CPU of the `raw` or the averaged (`ema`) weights, ready for `build_model`."""
        assert kind == "raw" or self.ema is not None, "a recipe with ema_decay 0 has no averaged weights"
        module = self.ema.module if kind == "ema" and self.ema else self.model
        return {name: value.detach().cpu().clone().contiguous() for name, value in module.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on."""
        return {
            "format": CHECKPOINT_FORMAT,
            "recipe": self.recipe.model_dump(),
            "num_fit_images": len(self.labels),
            "epoch": self.epoch,
            "micro_batch_size": self.micro_batch_size,
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, with micro-batches no larger than it had.

        Raises InvalidInput when it belongs to another recipe or data set.
        """
        mine = {"format": CHECKPOINT_FORMAT, "num_fit_images": len(self.labels), **self.recipe.model_dump()}
        theirs = {key: state.get(key) for key in ("format", "num_fit_images")} | state.get("recipe", {})
        differing = [key for key in mine if mine[key] != theirs.get(key)]
        if differing:
            raise InvalidInput(
                [
                    problem("checkpoint", key, f"must be {mine[key]!r}, as in this run", theirs.get(key))
                    for key in differing
                ]
            )
        self.model.load_state_dict(state["model"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch = state["epoch"]
        self.micro_batch_size = min(self.micro_batch_size, state["micro_batch_size"])
        self._prepare()

    @memory_errors()
    def resume(self, directory: Path) -> None:
        """Continue from the checkpoint in `directory`."""
        self.load_state_dict(load_checkpoint(directory))

    def _train_epoch(self) -> dict[str, float]:
        self.model.train()
        seeds = np.random.SeedSequence([self.recipe.seed, self.epoch]).generate_state(2, np.uint64)
        self.step.generator.manual_seed(int(seeds[0] >> 1))
        self.step.dropout.seed(int(seeds[1] >> 1))
        order = torch.randperm(len(self.labels), generator=self.step.generator, device=self.device)
        losses = torch.zeros(self.steps_per_epoch, device=self.device)
        norms = torch.zeros(self.steps_per_epoch, device=self.device)
        learning_rate = float(self.optimizer.param_groups[0]["lr"])  # of the heads
        for step, indices in enumerate(_batches(order, self.recipe, self.steps_per_epoch)):
            self.step.dropout.begin_step()
            losses[step], norms[step] = self._take(indices, cheap=step % self.recipe.sam_interval > 0)
            if self.device.type == "cpu":  # asking it costs nothing
                self._stop_at_divergence(losses[: step + 1])
            self.schedule.step()
            if self.ema:
                self.ema.update(self.epoch * self.steps_per_epoch + step + 1)
        self._stop_at_divergence(losses)
        return {
            "train_loss": float(losses.mean()),
            "learning_rate": learning_rate,
            "gradient_norm": float(norms.mean()),
        }

    def _stop_at_divergence(self, losses: Tensor) -> None:
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            step = int((~finite).nonzero()[0])
            number = self.epoch * self.steps_per_epoch + step + 1
            raise Diverged(f"the loss of step {number} (epoch {self.epoch + 1}) is {float(losses[step])}")

    def _validate(self) -> dict[str, float]:
        logits = predict_logits(self.model, self.validation_pixels)
        metrics = {f"val_{name}": value for name, value in epoch_metrics(logits, self.validation_labels).items()}
        if self.ema:
            logits = predict_logits(self.ema.module, self.validation_pixels)
            metrics["val_accuracy_ema"] = epoch_metrics(logits, self.validation_labels)["accuracy"]
        return metrics


def num_steps(num_images: int, recipe: Recipe) -> int:
    """Return the optimizer steps of an epoch; one image that would be left over goes to the step before it.

    Raises InvalidInput where LookSAM's interval is longer than the epoch, at whose start it begins anew.
    """
    effective = recipe.batch_size * recipe.accumulation
    steps = max(1, num_images // effective + (num_images % effective > 1))
    if recipe.sam_interval > steps:
        rule = f"must be at most the {steps} steps of an epoch"
        raise InvalidInput(problem("recipe", "sam_interval", rule, recipe.sam_interval))
    return steps


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _batches(order: Tensor, recipe: Recipe, num_steps: int) -> Iterator[Tensor]:
    """Cut the images of an epoch into the batches of its steps; the last one takes what is left."""
    effective = recipe.batch_size * recipe.accumulation
    for step in range(num_steps):
        last = step == num_steps - 1
        yield order[step * effective :] if last else order[step * effective : (step + 1) * effective]


def _on_device(faces: Faces, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return pixels and labels as tensors; copied, since arrays out of Ray's object store are read-only."""
    return torch.tensor(faces.pixels, device=device), torch.tensor(faces.labels, device=device)


def _soft_labels(fit: Faces, recipe: Recipe, device: torch.device) -> Tensor | None:
    """Return the soft labels (N, classes) where the recipe has a use for them; raises InvalidInput without any."""
    if found := soft_label_problems(recipe.model_dump(), given=fit.soft_labels is not None):
        raise InvalidInput([f"recipe: {line}" for line in found])
    if recipe.soft_label_weight == 0:
        return None
    return torch.tensor(fit.soft_labels, device=device)
