"""A finished training, or several as one, to a bundle: recipes, weights, ONNX, manifest and model card, checked against
torch.

The ONNX file is the whole prediction, with the views and the temperature that search-validation chose; the weights are
the networks' alone.
"""

import shutil
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import timm
import tomli_w
import torch
from numpy.typing import NDArray
from torch import nn

from fer_search.atomic import replacing
from fer_search.data.faces import FER2013, IMAGE_SIZE, ImageForm
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput, problem
from fer_search.model_card import CARD, model_card
from fer_search.predict import MANIFEST, sha256_of
from fer_search.recipe import Recipe
from fer_search.record import form_of
from fer_search.runs import RESULT, read_json, write_json
from fer_search.training.backbone import normalisation
from fer_search.training.ensemble import Member, load_members
from fer_search.training.evaluation import predict_logits
from fer_search.training.measurement import ViewChoice
from fer_search.training.model_summary import summarize
from fer_search.training.run import WEIGHTS
from fer_search.training.views import PredictionNet, as_images

FILES = {"recipe": "winner.toml", "weights": "model.safetensors", "onnx": "model.onnx"}
"""The files of a bundle of one network by their roles."""
PARITY_TOLERANCE = 1e-3
"""Largest difference between torch's and ONNX Runtime's logits that a bundle may have."""
TIMM_PREFIX = "backbone.network."
"""What the names of the backbone's weights begin with; after it they are timm's own."""
PACKAGES = ("fer-search", "torch", "timm", "onnx", "onnxruntime", "numpy")


def export_bundle(training: Path, bundle: Path, *, selection: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the bundle of the finished training in `training` and return its manifest.

    `selection` says in the manifest how the training was chosen among several, if it was. Raises InvalidInput if the
    training is not finished, and as `write_bundle` does.
    """
    result = read_json(training / RESULT)
    recipe = Recipe.stored(result["recipe"], source=training / RESULT)
    return write_bundle(bundle, result, [Member(recipe, training / WEIGHTS)], kind="training", selection=selection)


def write_bundle(
    bundle: Path,
    result: dict[str, Any],
    members: Sequence[Member],
    *,
    kind: Literal["training", "soup", "ensemble"],
    selection: dict[str, Any] | None,
) -> dict[str, Any]:
    """Write the bundle of one network, or of several as an ensemble, with the figures in `result`; return its manifest.

    Raises InvalidInput if `bundle` is there already, and RuntimeError if ONNX Runtime does not compute what torch
    computes. A bundle appears whole or not at all.
    """
    check_absent(bundle)
    files = file_names(len(members))
    with replacing(bundle) as temporary:
        temporary.mkdir()
        for (recipe, weights), member in zip(role_pairs(len(members)), members, strict=True):
            write_recipe(member.recipe, temporary / files[recipe])
            shutil.copyfile(member.weights, temporary / files[weights])
        choice = ViewChoice(**result["prediction"])
        form = form_of(result["data"])
        network = choice.prediction_net(load_members(members, form)).eval()
        write_onnx(network, temporary / files["onnx"], form)
        difference = parity(network, temporary / files["onnx"], form)
        if difference > PARITY_TOLERANCE:
            raise RuntimeError(f"ONNX Runtime's logits differ from torch's by {difference:.2g}")
        manifest = _manifest(temporary, result, members, form, network, difference)
        manifest |= {"kind": kind, "selection": selection}
        if kind == "ensemble":
            manifest["members"] = [{"count": each.count, "temperature": each.temperature} for each in members]
        write_json(temporary / MANIFEST, manifest)
        # Not among the manifest's files: people complete a card before they publish it.
        card = model_card(manifest, *(member.recipe for member in members))
        (temporary / CARD).write_text(card, encoding="utf-8")
    return manifest


def check_absent(bundle: Path) -> None:
    """Raise InvalidInput where there is something already."""
    if bundle.exists():
        raise InvalidInput(problem(bundle, "bundle", "must not be there yet", "a file or folder"))


def role_pairs(num_members: int) -> list[tuple[str, str]]:
    """Return what recipe and weights of each network are called among a manifest's files."""
    if num_members == 1:
        return [("recipe", "weights")]
    return [(f"recipe_{number}", f"weights_{number}") for number in range(1, num_members + 1)]


def file_names(num_members: int) -> dict[str, str]:
    """Return the names of a bundle's files by their roles."""
    if num_members == 1:
        return FILES
    roles = {role: f"{role}.toml" for role, _ in role_pairs(num_members)}
    return {**roles, **{role: f"{role}.safetensors" for _, role in role_pairs(num_members)}, "onnx": FILES["onnx"]}


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as TOML that `fer-search train` and `Recipe.read` take as it is."""
    with replacing(path) as temporary:
        temporary.write_text(tomli_w.dumps(recipe.model_dump()), encoding="utf-8")


def write_onnx(model: nn.Module, path: Path, form: ImageForm = FER2013) -> None:
    """Write `images` (N, channels, size, size) in [0, 1] to `logits` (N, classes), for any N, as one checked ONNX
    file.
    """
    example = torch.rand(2, form.channels, form.size, form.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (example,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("num_images")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
    onnx.checker.check_model(str(path), full_check=True)


def parity(model: nn.Module, onnx_file: Path, form: ImageForm = FER2013) -> float:
    """Return the largest difference between torch's and ONNX Runtime's logits over 64 faces and 1 face."""
    pixels = _example_faces(form)
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    expected = predict_logits(model, torch.tensor(pixels)).numpy()
    images = as_images(torch.tensor(pixels)).numpy() / 255
    together = session.run(["logits"], {"images": images})[0]
    alone = session.run(["logits"], {"images": images[:1]})[0]
    return float(max(np.abs(together - expected).max(), np.abs(alone - expected[:1]).max()))


def _example_faces(form: ImageForm) -> NDArray[np.uint8]:
    """Return 64 synthetic faces of this form; a colour image has another one in each channel."""
    nearest = np.arange(form.size) * IMAGE_SIZE // form.size
    grey = synthesize(64, seed=1).pixels[:, nearest][:, :, nearest]
    return grey if form.channels == 1 else np.stack([np.roll(grey, shift, axis=0) for shift in range(3)], axis=-1)


def _manifest(
    bundle: Path,
    result: dict[str, Any],
    members: Sequence[Member],
    form: ImageForm,
    network: PredictionNet,
    difference: float,
) -> dict[str, Any]:
    colour = "grey" if form.channels == 1 else "RGB"
    return {
        "classes": list(form.classes),
        "input": {
            "name": "images",
            "channels": form.channels,
            "height": form.size,
            "width": form.size,
            "range": [0.0, 1.0],
            "preprocessing": f"{colour}, cut square around the centre, resized bilinearly, divided by 255",
        },
        "output": {
            "name": "logits",
            "probabilities": "softmax",
            "views": list(network.views),
            "temperature": network.temperature,
            "logit_shift": None if network.shift is None else network.shift.tolist(),
        },
        "network": _describe_networks([member.recipe for member in members], form, network.network),
        "recipe_digest": "+".join(member.recipe.digest() for member in members),
        "chosen": result.get("chosen"),
        "prediction": result["prediction"],
        "metrics": result["metrics"],
        "data": result["data"],
        "trained_on": result.get("trained_on"),
        "onnx_parity": {"largest_logit_difference": difference, "tolerance": PARITY_TOLERANCE},
        "files": {
            role: {"name": name, "sha256": sha256_of(bundle / name), "bytes": (bundle / name).stat().st_size}
            for role, name in file_names(len(members)).items()
        },
        "versions": {package: version(package) for package in PACKAGES},
    }


def _describe_networks(recipes: Sequence[Recipe], form: ImageForm, network: Any) -> dict[str, Any]:
    """Return what one network is, or several together are and cost."""
    if len(recipes) == 1:
        return _describe_network(recipes[0], form, network)
    each = [_describe_network(recipe, form, one) for recipe, one in zip(recipes, network.members, strict=True)]
    return {
        "backbone": ", ".join(dict.fromkeys(one["backbone"] for one in each)),
        **{key: sum(one[key] for one in each) for key in ("num_parameters", "flops")},
        "timm_prefix": None,
        "members": each,
    }


def _describe_network(recipe: Recipe, form: ImageForm, network: Any) -> dict[str, Any]:
    """Return what the network is and costs, and what whoever takes its backbone alone must know.

    The prefix is None where timm's own network has layers before its classifier that this one lacks.
    """
    summary = summarize(recipe, form)
    mean, std = normalisation(network.backbone, form.channels)
    backbone = network.backbone.network
    own = timm.create_model(recipe.backbone, in_chans=form.channels, num_classes=0).state_dict()
    first = backbone.pretrained_cfg["first_conv"]
    return {
        "backbone": recipe.backbone,
        "num_parameters": sum(part.num_parameters for part in summary.parts if part.flops),
        "flops": summary.total.flops,
        "timm_prefix": TIMM_PREFIX if own.keys() == backbone.state_dict().keys() else None,
        "first_convolution": first if isinstance(first, str) else first[0],
        "mean": [float(each) for each in mean],
        "std": [float(each) for each in std],
    }
