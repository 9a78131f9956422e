"""A network on faces: logits, and what an epoch reports of them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_search.training.allocator import keep_freed_memory
from fer_search.training.views import View, as_images, identity

GPU_BATCH = 512
CPU_BATCH = 64
"""More images at a time are no faster on a CPU, and take more memory."""


@torch.no_grad()
def predict_logits(model: nn.Module, pixels: Tensor, *, view: View = identity) -> Tensor:
    """Return the float32 logits (N, classes) of a view of uint8 pixels (N, H, W) or (N, H, W, 3) on the model's device;
    its mode stays.
    """
    on_cpu = pixels.device.type == "cpu"
    if on_cpu:
        keep_freed_memory()
    was_training = model.training
    model.eval()
    batches = torch.split(pixels, CPU_BATCH if on_cpu else GPU_BATCH)
    logits = torch.cat([model(view(as_images(batch) / 255)).float() for batch in batches])
    model.train(was_training)
    return logits


def epoch_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return loss, accuracy and macro-F1 of logits (N, classes) against labels (N,)."""
    predicted = logits.argmax(1)
    loss = F.cross_entropy(logits, labels)
    return {
        "loss": float(loss),
        "accuracy": float((predicted == labels).float().mean()),
        "macro_f1": _macro_f1(predicted, labels, num_classes=logits.shape[1]),
    }


def _macro_f1(predicted: Tensor, labels: Tensor, *, num_classes: int) -> float:
    """Return the mean over the classes of F1, which is 0 for a class that is neither there nor predicted.

    scikit-learn has it, and would take a sixth of the time in which the worker of a first trial starts.
    """
    hits, there, named = (
        torch.bincount(classes, minlength=num_classes) for classes in (labels[predicted == labels], labels, predicted)
    )
    return float((2 * hits / (there + named).clamp(min=1)).mean())
