"""Everything that changes the trained weights, in one frozen, flat value: the one source of truth of the project.

The same string is the field here, the key in a space file, the `key=value` of the command line, the MLflow parameter
and the key in a bundle's manifest. Paths, devices, worker counts and tracking addresses do not change the weights and
so are arguments of a run, not fields. A technique is switched off by a zero; a field that would then do nothing must
keep its default, so that no setting is silently without effect.
"""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from fer_search.design import DESIGN
from fer_search.errors import InvalidInput, finding, nearest_name, problem
from fer_search.files import read_toml

CLASS_FIELDS = {"fear": "randaugment_probability_fear", "sad": "randaugment_probability_sad"}
"""The settings that are about one class of the data, by its name."""
Probability = Annotated[float, Field(ge=0, le=1)]
# A list wherever it is written, as TOML and JSON have no other, so that what was read equals what was meant.
Epochs = Annotated[
    tuple[int, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    PlainSerializer(list, return_type=list[int]),
]


class Recipe(BaseModel):
    """One training run, completely described."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    split_seed: int = Field(
        0, ge=0, lt=2**32, description="seed of the split of Training into fit and search-validation"
    )
    validation_fraction: float = Field(0.1, ge=0.02, le=0.5, description="share of Training that trials are judged on")
    fit_fraction: float = Field(1.0, gt=0, le=1, description="stratified share of the fit images that is trained on")
    drop_test_duplicates: bool = Field(
        True, description="leave Training images out that also stand in a test split, byte for byte"
    )

    backbone: str = Field("tf_efficientnet_lite0", min_length=1, description="name of a timm image model")
    pretrained: bool = Field(True, description="begin with the backbone's ImageNet weights")
    image_size: int = Field(48, ge=32, le=256, description="side in pixels to which the network resizes a face")
    stem_stride: Literal[1, 2] = Field(1, description="stride of the first convolution; 1 keeps 48x48 faces sharp")
    output_stride: Literal[8, 16, 32] = Field(
        32, description="nominal stride of the last map; below 32, dilation replaces the last strides"
    )
    fusion_width: int = Field(96, ge=0, le=1024, description="channels of the cross-scale fusion of the maps; 0 is off")
    se_attention: bool = Field(False, description="squeeze-and-excitation on every map that is pooled")
    cbam_attention: bool = Field(False, description="channel and spatial attention (CBAM) on every map that is pooled")
    coordinate_attention: bool = Field(False, description="coordinate attention on every map that is pooled")
    self_attention_heads: int = Field(
        0, ge=0, le=32, description="heads of self attention on every map that is pooled; 0 is off"
    )
    pyramid_pooling: bool = Field(
        False, description="pool the finest of these maps over grids of 1, 2 and 3 cells a side too"
    )
    emotion_heads_weight: float = Field(
        0.0, ge=0, le=10, description="loss weight of a one-against-the-rest head for each emotion; 0 is off"
    )
    auxiliary_weight: float = Field(
        0.0, ge=0, le=10, description="loss weight of the classifiers on two earlier maps; 0 is off"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout before the classifier")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the last block, growing linearly to it")

    epochs: int = Field(14, ge=1, le=10_000, description="passes over the fit images; the length of the schedule")
    restarts: Epochs = Field(
        (), description="epochs after which OneCycle begins anew, the rates having come down; empty: one OneCycle"
    )
    batch_size: int = Field(32, ge=2, le=65_536, description="images per forward pass (micro-batch)")
    accumulation: int = Field(2, ge=1, le=4_096, description="micro-batches per optimizer step")
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="base optimizer that SAM wraps")
    max_lr: float = Field(0.002, gt=0, le=10, description="OneCycle's peak learning rate")
    backbone_lr_scale: float = Field(1.0, gt=0, le=1, description="the backbone's share of the learning rate")
    div_factor: float = Field(10.0, ge=1, le=1e6, description="OneCycle starts at max_lr / div_factor")
    final_div_factor: float = Field(1e4, ge=1, le=1e9, description="OneCycle ends at its start / final_div_factor")
    pct_start: float = Field(0.3, gt=0, lt=1, description="share of the steps in which the learning rate rises")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's Nesterov momentum, or AdamW's first beta")
    weight_decay: float = Field(0.02, ge=0, le=10, description="weight decay of the base optimizer")
    grad_clip: float = Field(1.0, ge=0, le=1e6, description="largest global gradient norm of the update; 0 is off")
    sam_rho: float = Field(0.0, ge=0, le=10, description="radius of sharpness-aware minimisation (SAM); 0 is off")
    sam_adaptive: bool = Field(False, description="scale SAM's radius by each weight's size (ASAM)")
    sam_interval: int = Field(
        1, ge=1, le=100, description="steps from one full SAM step to the next; LookSAM's cheap steps in between"
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability mass spread evenly over the classes")
    soft_label_weight: Probability = Field(
        0.0, description="share of an image's soft label in its target (--soft-labels); 0 is off"
    )
    class_weight_power: float = Field(
        0.0, ge=0, le=1, description="weight of an image by its emotion's rarity, from 0 (none) to 1 (balanced)"
    )
    ema_decay: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="decay of the averaged weights, at first 1 - step^(-2/3) if that is less; 0 is off",
    )

    flip_probability: Probability = Field(0.5, description="chance of a horizontal flip")
    shift_pixels: int = Field(4, ge=0, le=24, description="largest shift in pixels, in both directions")
    randaugment_magnitude: float = Field(0.0, ge=0, le=30, description="RandAugment's strength of 30; 0 is off")
    randaugment_operations: int = Field(2, ge=1, le=8, description="RandAugment's operations per image")
    randaugment_probability: Probability = Field(0.8, description="chance of RandAugment for the other emotions")
    randaugment_probability_fear: Probability = Field(0.95, description="chance of RandAugment for a fearful face")
    randaugment_probability_sad: Probability = Field(0.9, description="chance of RandAugment for a sad face")
    erasing_probability: Probability = Field(0.0, description="chance that a random box is filled with noise")
    mixup_alpha: float = Field(0.2, ge=0, le=10, description="MixUp's Beta parameter; 0 is off")
    cutmix_alpha: float = Field(0.5, ge=0, le=10, description="CutMix's Beta parameter; 0 is off")
    mix_probability: Probability = Field(0.5, description="chance that an image is mixed with another")
    cutmix_share: Probability = Field(0.5, description="CutMix's share of the mixed images; the others get MixUp")

    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="bf16 autocast or fp32; auto takes bf16 on a GPU that has it"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of weights, data order, augmentation and dropout")
    weights_seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="seed of the network's first weights alone, so that seeds can share them; 0: `seed`",
    )

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> Self:
        no_sam = ("sam_rho is 0", self.sam_rho == 0)
        no_randaugment = ("randaugment_magnitude is 0", self.randaugment_magnitude == 0)
        switched_off = {
            "sam_adaptive": no_sam,
            "sam_interval": no_sam,
            "randaugment_operations": no_randaugment,
            "randaugment_probability": no_randaugment,
            "randaugment_probability_fear": no_randaugment,
            "randaugment_probability_sad": no_randaugment,
            "mix_probability": ("mixup_alpha and cutmix_alpha are 0", self.mixup_alpha == self.cutmix_alpha == 0),
            "cutmix_share": ("mixup_alpha or cutmix_alpha is 0", 0 in (self.mixup_alpha, self.cutmix_alpha)),
        }
        problems = []
        for key, (reason, off) in switched_off.items():
            value, default = getattr(self, key), type(self).model_fields[key].default
            # A class's own chance may always be that of all others, which data without the class asks for.
            allowed = {default, self.randaugment_probability} if key in CLASS_FIELDS.values() else {default}
            if off and value not in allowed:
                problems.append(finding(key, f"must stay {default!r}, since it has no effect while {reason}", value))
        ends = (0, *self.restarts, self.epochs)
        if any(end <= start for start, end in itertools.pairwise(ends)):
            rule = f"must be epochs from 1 to {self.epochs - 1}, the earlier first and each once"
            problems.append(finding("restarts", rule, list(self.restarts)))
        mixes = self.mixup_alpha > 0 or self.cutmix_alpha > 0
        if mixes and self.mix_probability == 0:
            rule = "must be above 0 (mixing is switched off by mixup_alpha = 0 and cutmix_alpha = 0)"
            problems.append(finding("mix_probability", rule, 0.0))
        if self.mixup_alpha > 0 and self.cutmix_alpha > 0 and self.cutmix_share in (0, 1):
            rule = "must be above 0 and below 1 (switch off one of the two by mixup_alpha = 0 or cutmix_alpha = 0)"
            problems.append(finding("cutmix_share", rule, self.cutmix_share))
        if self.randaugment_magnitude > 0 and max(self.randaugment_probabilities(("fear", "sad", "other"))) == 0:
            rule = "must be above 0 (RandAugment is switched off by randaugment_magnitude = 0)"
            problems.append(finding("randaugment_probability", rule, 0.0))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def first_weights_seed(self) -> int:
        """The seed that the network's first weights are drawn from."""
        return self.weights_seed or self.seed

    def randaugment_probabilities(self, classes: Iterable[str]) -> list[float]:
        """Return RandAugment's chance for each class."""
        own = {name: getattr(self, field) for name, field in CLASS_FIELDS.items()}
        return [own.get(name, self.randaugment_probability) for name in classes]

    @classmethod
    def design(cls) -> Self:
        """Return the settings of the project's reference design: every technique at once, for 300 epochs."""
        return cls(**DESIGN)

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> list[str]:
        """Return every problem of `values` as `<field>: <what must hold>, got <value>`; none means a Recipe."""
        try:
            cls(**values)
        except ValidationError as error:
            return [line for item in error.errors() for line in _lines(item)]
        return []

    @classmethod
    def build(cls, values: Mapping[str, Any], *, source: object = "recipe") -> Self:
        """Build a Recipe of `values`, or raise InvalidInput that lists all problems under the name `source`."""
        if problems := cls.problems(values):
            raise InvalidInput([f"{source}: {line}" for line in problems])
        return cls(**values)

    @classmethod
    def stored(cls, values: Mapping[str, Any], *, source: object) -> Self:
        """Build the recipe that an earlier run wrote, or raise InvalidInput where it is not complete.

        A field that the run did not know yet has no value that can be known: today's default would be another training.
        """
        rule = "must be there (written by another version of fer_search?)"
        if missing := [key for key in cls.model_fields if key not in values]:
            raise InvalidInput([problem(source, key, rule, "nothing") for key in missing])
        return cls.build(values, source=source)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a recipe from a TOML file, such as the `winner.toml` of a bundle."""
        return cls.build(read_toml(path), source=path)

    def replace(self, values: Mapping[str, Any], *, source: object = "recipe") -> Self:
        """Return the recipe with some fields changed, validated again."""
        return self.build({**self.model_dump(), **values}, source=source)

    def digest(self) -> str:
        """Return 12 hexadecimal digits that name this recipe."""
        canonical = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def absent_class_fields(classes: Collection[str]) -> dict[str, str]:
    """Return the fields that are about a class which data with these classes has not, with the class."""
    return {field: name for name, field in CLASS_FIELDS.items() if name not in classes}


def class_problems(values: Mapping[str, Any], classes: Collection[str]) -> list[str]:
    """Return which values of a recipe are about a class that the data has not, while they would have an effect."""
    if values["randaugment_magnitude"] == 0:
        return []
    common = values["randaugment_probability"]
    rule = f"must be {common!r}, as randaugment_probability, since the data has no class {{!r}}"
    absent = absent_class_fields(classes).items()
    return [finding(key, rule.format(name), values[key]) for key, name in absent if values[key] != common]


def soft_label_problems(values: Mapping[str, Any], *, given: bool) -> list[str]:
    """Return what is wrong with a recipe's use of soft labels where some, or none, were `given`."""
    weight = values["soft_label_weight"]
    rule = "must be 0 where the images have no soft labels (--soft-labels)"
    return [finding("soft_label_weight", rule, weight)] if weight > 0 and not given else []


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` arguments; a value is TOML (`1e-3`, `true`, `"x"`) and a bare word is a string."""
    values: dict[str, Any] = {}
    problems = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.isidentifier():
            problems.append(problem("command line", argument, "must be key=value", argument))
        elif key in values:
            problems.append(problem("command line", key, "must be given once", argument))
        else:
            values[key] = toml_value(text)
    if problems:
        raise InvalidInput(problems)
    return values


def recipe_tags(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that follow from a recipe's parameters."""
    return {"recipe_digest": Recipe.build(parameters).digest()}


def commented_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML with what each field does as a comment; `Recipe.read` takes it as it is."""
    lines = [
        f"{name} = {json.dumps(getattr(recipe, name))}  # {field.description}"
        for name, field in Recipe.model_fields.items()
    ]
    return "\n".join(lines)


def field_table() -> str:
    """Return the fields as the Markdown table of the README."""
    rows = ["| field | default | what it does |", "|---|---|---|"]
    rows += [f"| `{name}` | `{json.dumps(f.default)}` | {f.description} |" for name, f in Recipe.model_fields.items()]
    return "\n".join(rows)


def toml_value(text: str) -> Any:
    """Return what TOML reads in a text (`1e-3`, `true`, `"x"`), or the text itself where it reads nothing."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _lines(item: Any) -> list[str]:
    """Turn one pydantic error into our form; what concerns several fields comes with its lines already formed."""
    key = ".".join(str(part) for part in item["loc"])
    if not item["loc"]:
        return str(item["ctx"]["error"]).splitlines()
    if item["type"] == "extra_forbidden":
        return [finding(key, f"must be a field of the recipe{nearest_name(key, Recipe.model_fields)}", item["input"])]
    rule = item["msg"].replace("Input should be", "must be").replace("String should", "must")
    return [finding(key, rule, item["input"])]
