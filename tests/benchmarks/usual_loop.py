"""The training loop that people write for FER2013: a DataLoader with workers, PIL and torchvision transforms per image,
timm's Mixup, SAM as its reference implementation has it, and a running loss."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fer_search.data.faces import EMOTIONS, Faces
from fer_search.recipe import Recipe


class FaceDataset(Dataset[tuple[Tensor, int]]):
    """One face at a time, from its pixels to a tensor."""

    def __init__(self, faces: Faces, recipe: Recipe) -> None:
        self.faces = faces
        shift = recipe.shift_pixels / 48
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(recipe.flip_probability),
                transforms.RandomAffine(0, translate=(shift, shift)),
                transforms.RandAugment(recipe.randaugment_operations, int(recipe.randaugment_magnitude)),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.faces.pixels[index])), int(self.faces.labels[index])


class ReferenceSAM(torch.optim.Optimizer):
    """SAM in two steps around a base optimizer, parameter by parameter (Foret et al. 2021)."""

    def __init__(self, parameters: Any, base: type[torch.optim.Optimizer], *, rho: float, **settings: Any) -> None:
        super().__init__(parameters, {"rho": rho, **settings})
        self.base = base(self.param_groups, **settings)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        """Climb, and remember where from."""
        norm = self._norm()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old"] = p.data.clone()
                    p.add_(p.grad * (group["rho"] / (norm + 1e-12)))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        """Go back, and step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data = self.state[p]["old"]
        self.base.step()
        self.zero_grad()

    def _norm(self) -> Tensor:
        norms = [p.grad.norm(p=2) for group in self.param_groups for p in group["params"] if p.grad is not None]
        return torch.norm(torch.stack(norms), p=2)


def usual_epochs(
    model: nn.Module, faces: Faces, recipe: Recipe, device: torch.device, *, bf16: bool
) -> Iterator[float]:
    """Train epoch after epoch and yield the mean loss of each; the workers stay."""
    loader = DataLoader(
        FaceDataset(faces, recipe), batch_size=recipe.batch_size * recipe.accumulation, shuffle=True, drop_last=True,
        num_workers=min(8, os.cpu_count() or 1), persistent_workers=True, pin_memory=device.type == "cuda",
    )  # fmt: skip
    mixup = Mixup(
        mixup_alpha=recipe.mixup_alpha, cutmix_alpha=recipe.cutmix_alpha, prob=recipe.mix_probability,
        label_smoothing=recipe.label_smoothing, num_classes=len(EMOTIONS),
    )  # fmt: skip
    model = model.to(device).train()
    criterion = SoftTargetCrossEntropy()
    optimizer = ReferenceSAM(
        model.parameters(), torch.optim.AdamW, rho=recipe.sam_rho, lr=recipe.max_lr, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer.base, recipe.max_lr, total_steps=10**6)
    while True:
        total = 0.0
        for batch, labels in loader:
            images, targets = batch.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            images, targets = mixup(images, targets)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = criterion(model(images), targets)
            loss.backward()
            optimizer.first_step()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                second = criterion(model(images), targets)
            second.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip)
            optimizer.second_step()
            schedule.step()
            total += loss.item()
        yield total / len(loader)
