"""Training as something that can be searched; it satisfies the search's Objective contract by its shape."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from fer_search.data.faces import Faces
from fer_search.recipe import Recipe
from fer_search.training.memory import half
from fer_search.training.trainer import EpochReport, Trainer


@dataclass(frozen=True)
class TrainingObjective:
    """Trains on the same faces for whatever recipe it is called with, on `device` with `threads` CPU threads.

    Micro-batches are of the recipe's batch size, halved so many times.
    """

    fit: Faces
    validation: Faces
    device: str
    threads: int
    halvings: int = 0

    def __call__(self, parameters: Mapping[str, Any], resume_from: Path | None) -> Iterator[EpochReport]:
        """Start a training of the recipe `parameters`, or resume it from a directory that a report was saved to."""
        torch.set_num_threads(self.threads)
        recipe, device = Recipe.build(parameters), torch.device(self.device)
        size = recipe.batch_size >> self.halvings
        trainer = Trainer(recipe, self.fit, self.validation, device=device, micro_batch_size=size)
        if resume_from is not None:
            trainer.resume(resume_from)
        return iter(trainer)

    def smaller(self, parameters: Mapping[str, Any]) -> Self | None:
        """Return the same training in micro-batches of half the size, or None where these would be of one image."""
        size = Recipe.build(parameters).batch_size >> self.halvings
        return None if half(size) is None else replace(self, halvings=self.halvings + 1)
