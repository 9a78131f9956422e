"""Everything that changes the trained weights, in one frozen, flat value: the one source of truth of the project.

The same string is the field here, the key in a space file, the `key=value` of the command line, the MLflow parameter
and the key in a bundle's manifest. Paths, devices, worker counts and tracking addresses do not change the weights and
so are arguments of a run, not fields. A technique is switched off by a zero; a field that would then do nothing must
keep its default, so that no setting is silently without effect.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fer_search.errors import InvalidInput, finding, nearest_name, problem

Probability = Annotated[float, Field(ge=0, le=1)]


class Recipe(BaseModel):
    """One training run, completely described; the defaults are the settings of the project's reference design."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    split_seed: int = Field(
        0, ge=0, lt=2**32, description="seed of the split of Training into fit and search-validation"
    )
    validation_fraction: float = Field(0.1, ge=0.02, le=0.5, description="share of Training that trials are judged on")
    fit_fraction: float = Field(1.0, gt=0, le=1, description="stratified share of the fit images that is trained on")
    drop_test_duplicates: bool = Field(
        True, description="leave Training images out that also stand in a test split, byte for byte"
    )

    backbone: str = Field("efficientnet_b0", min_length=1, description="name of a timm image model")
    stem_stride: Literal[1, 2] = Field(1, description="stride of the first convolution; 1 keeps 48x48 faces sharp")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout before the classifier")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the last block, growing linearly to it")

    epochs: int = Field(300, ge=1, le=10_000, description="passes over the fit images; the length of the schedule")
    batch_size: int = Field(32, ge=1, le=65_536, description="images per forward pass (micro-batch)")
    accumulation: int = Field(2, ge=1, le=4_096, description="micro-batches per optimizer step")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="base optimizer that SAM wraps")
    max_lr: float = Field(0.01, gt=0, le=10, description="OneCycle's peak learning rate")
    div_factor: float = Field(2.0, ge=1, le=1e6, description="OneCycle starts at max_lr / div_factor")
    final_div_factor: float = Field(1e4, ge=1, le=1e9, description="OneCycle ends at its start / final_div_factor")
    pct_start: float = Field(0.3, gt=0, lt=1, description="share of the steps in which the learning rate rises")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's Nesterov momentum, or AdamW's first beta")
    weight_decay: float = Field(5e-4, ge=0, le=10, description="weight decay of the base optimizer")
    grad_clip: float = Field(1.0, ge=0, le=1e6, description="largest global gradient norm of the update; 0 is off")
    sam_rho: float = Field(0.05, ge=0, le=10, description="radius of sharpness-aware minimisation (SAM); 0 is off")
    sam_adaptive: bool = Field(False, description="scale SAM's radius by each weight's size (ASAM)")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability mass spread evenly over the classes")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, warmed up; 0 is off")

    flip_probability: Probability = Field(0.5, description="chance of a horizontal flip")
    shift_pixels: int = Field(4, ge=0, le=24, description="largest shift in pixels, in both directions")
    randaugment_magnitude: float = Field(9.0, ge=0, le=30, description="RandAugment's strength of 30; 0 is off")
    randaugment_operations: int = Field(2, ge=1, le=8, description="RandAugment's operations per image")
    mixup_alpha: float = Field(0.4, ge=0, le=10, description="MixUp's Beta parameter; 0 is off")
    cutmix_alpha: float = Field(0.5, ge=0, le=10, description="CutMix's Beta parameter; 0 is off")
    mix_probability: Probability = Field(
        0.5, description="chance that an image is mixed with another; MixUp and CutMix share it evenly"
    )

    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="bf16 autocast or fp32; auto takes bf16 on a GPU that has it"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of weights, data order, augmentation and dropout")

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> Self:
        switched_off = {
            "sam_adaptive": ("sam_rho is 0", self.sam_rho == 0),
            "randaugment_operations": ("randaugment_magnitude is 0", self.randaugment_magnitude == 0),
            "mix_probability": ("mixup_alpha and cutmix_alpha are 0", self.mixup_alpha == self.cutmix_alpha == 0),
        }
        problems = []
        for key, (reason, off) in switched_off.items():
            value, default = getattr(self, key), type(self).model_fields[key].default
            if off and value != default:
                problems.append(finding(key, f"must stay {default!r}, since it has no effect while {reason}", value))
        if self.mix_probability == 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0):
            rule = "must be above 0 (mixing is switched off by mixup_alpha = 0 and cutmix_alpha = 0)"
            problems.append(finding("mix_probability", rule, 0.0))
        if problems:
            raise ValueError("\n".join(problems))
        return self

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


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, or raise InvalidInput that names the file and the line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(problem(path, "file", "must be readable", error.strerror)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(problem(path, "file", "must be UTF-8 text", error.reason)) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(problem(path, "file", "must be TOML", str(error))) from error


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
            values[key] = _toml_value(text)
    if problems:
        raise InvalidInput(problems)
    return values


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


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _lines(item: Any) -> list[str]:
    """Turn one pydantic error into our form; what concerns several fields comes with its lines already formed."""
    key = ".".join(str(part) for part in item["loc"])
    if not key:
        return str(item["ctx"]["error"]).splitlines()
    if item["type"] == "extra_forbidden":
        return [finding(key, f"must be a field of the recipe{nearest_name(key, Recipe.model_fields)}", item["input"])]
    rule = item["msg"].replace("Input should be", "must be").replace("String should", "must")
    return [finding(key, rule, item["input"])]
