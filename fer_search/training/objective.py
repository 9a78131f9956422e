"""Training as something that can be searched; it satisfies the search's Objective contract by its shape."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fer_search.data.faces import Faces
from fer_search.recipe import Recipe
from fer_search.training.trainer import EpochReport, Trainer


@dataclass(frozen=True)
class TrainingObjective:
    """Trains on the same faces for whatever recipe it is called with, on `device` with `threads` CPU threads."""

    fit: Faces
    validation: Faces
    device: str
    threads: int

    def __call__(self, parameters: Mapping[str, Any], resume_from: Path | None) -> Iterator[EpochReport]:
        """Start a training of the recipe `parameters`, or resume it from a directory that a report was saved to."""
        torch.set_num_threads(self.threads)
        trainer = Trainer(Recipe.build(parameters), self.fit, self.validation, device=torch.device(self.device))
        if resume_from is not None:
            trainer.resume(resume_from)
        return iter(trainer)
