"""The network: a timm backbone, what refines its maps, and the heads."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_search.data.faces import FER2013, ImageForm
from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe
from fer_search.training.backbone import Backbone, backbone_problems, build_backbone, normalisation
from fer_search.training.memory import memory_errors
from fer_search.training.neck import CrossScaleFusion, MapAttention, PyramidPooling

EMOTION_HIDDEN = 32
# What a network that is not made for this raises, deep inside timm or torch.
BUILD_ERRORS = (TypeError, AssertionError, RuntimeError, AttributeError, LookupError, NotImplementedError, ValueError)
MOST_BILINEAR = 2
"""Bilinear interpolation looks at two pixels a side; shrinking by more would skip some."""


class Outputs(NamedTuple):
    """What the network says while it is trained: (N, classes) each."""

    logits: Tensor
    emotion_logits: Tensor | None  # "is it this emotion?", of each emotion's own head
    auxiliary_logits: list[Tensor]  # of classifiers on earlier maps


class EmotionNet(nn.Module):
    """Images in [0, 1], shape (N, channels, size, size) by their `form`, to logits (N, classes).

    Resizing and the normalisation that the backbone's published weights want are part of the network, so that whoever
    uses the weights cannot get them wrong. All layers exist when the constructor returns.
    """

    mean: float | Tensor
    std: float | Tensor

    def __init__(self, backbone: Backbone, recipe: Recipe, form: ImageForm) -> None:
        super().__init__()
        self.form = form
        self.image_size = recipe.image_size
        for name, values in zip(("mean", "std"), normalisation(backbone, form.channels), strict=True):
            if form.channels == 1:
                setattr(self, name, values[0])
            else:
                self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        shapes = backbone.shapes
        channels = [shape[0] for shape in shapes]
        self.backbone = backbone
        self.fusion = CrossScaleFusion(channels, recipe.fusion_width) if recipe.fusion_width else None
        pooled = [(recipe.fusion_width, *shape[1:]) for shape in shapes] if self.fusion else []
        pooled.append(shapes[-1])
        self.attention = nn.ModuleList(MapAttention(recipe, *shape) for shape in pooled)
        self.pyramid = PyramidPooling(*pooled[0]) if recipe.pyramid_pooling else None
        num_features = sum(shape[0] for shape in pooled) + (self.pyramid.num_features if self.pyramid else 0)
        self.dropout = nn.Dropout(recipe.dropout)
        num_classes = len(form.classes)
        self.classifier = nn.Linear(num_features, num_classes)
        self.emotion_heads = EmotionHeads(num_features, num_classes) if recipe.emotion_heads_weight else None
        self.auxiliary = nn.ModuleList(nn.Linear(num, num_classes) for num in channels[:-1] if recipe.auxiliary_weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, size, size) in [0, 1]."""
        logits: Tensor = self.classifier(self.dropout(self._features(self._maps(images))))
        return logits

    def no_weight_decay(self) -> set[str]:
        """Return the parameters of two dimensions that are no matrices: positions, and the shares of fused maps."""
        ends = (".position", ".top_down_weights", ".bottom_up_weights")
        return {name for name, _ in self.named_parameters() if name.endswith(ends)}

    def outputs(self, images: Tensor) -> Outputs:
        """Return the logits of all heads, for training."""
        maps = self._maps(images)
        features = self.dropout(self._features(maps))
        return Outputs(
            self.classifier(features),
            self.emotion_heads(features) if self.emotion_heads else None,
            [head(_pool(one)) for head, one in zip(self.auxiliary, maps, strict=False)],
        )

    def _maps(self, images: Tensor) -> list[Tensor]:
        if self.image_size != self.form.size:
            size = (self.image_size, self.image_size)
            shrinks = self.form.size > MOST_BILINEAR * self.image_size
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
        maps: list[Tensor] = self.backbone((images - self.mean) / self.std)
        return maps

    def _features(self, maps: list[Tensor]) -> Tensor:
        pooled = [*(self.fusion(maps) if self.fusion else []), maps[-1]]
        refined = [attention(one) for attention, one in zip(self.attention, pooled, strict=True)]
        features = [_pool(one) for one in refined]
        if self.pyramid:
            features.append(self.pyramid(refined[0]))
        return torch.cat(features, 1)


class EmotionHeads(nn.Module):
    """A small network of its own for each emotion, computed side by side."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, num_classes * EMOTION_HIDDEN)
        self.answer = nn.Conv1d(num_classes * EMOTION_HIDDEN, num_classes, 1, groups=num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logit (N, classes) of "it is this emotion" for features (N, D)."""
        answer: Tensor = self.answer(F.relu(self.hidden(features))[:, :, None])
        return answer[:, :, 0]


def build_model(recipe: Recipe, form: ImageForm = FER2013) -> EmotionNet:
    """Build the network of `recipe` for images of this form on the CPU, its weights drawn from its seeds alone.

    Raises InvalidInput if timm has no such backbone or the backbone cannot take the recipe's settings.
    """
    if found := backbone_problems(recipe.backbone):
        raise InvalidInput([f"recipe: {line}" for line in found])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.first_weights_seed)
        try:
            with memory_errors():  # which are of no setting
                backbone = build_backbone(recipe, form.channels).eval()
                model = EmotionNet(backbone, recipe, form)
        except InvalidInput:  # says already what is wrong, and is a ValueError too
            raise
        except BUILD_ERRORS as error:
            rule = f"must be a convolutional timm model that takes these settings ({error!r})"
            raise InvalidInput(problem("recipe", "backbone", rule, recipe.backbone)) from error
    return model.train()


def _pool(features: Tensor) -> Tensor:
    return features.mean((2, 3))
