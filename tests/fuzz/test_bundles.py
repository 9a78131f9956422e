"""Bundles from strangers: manifest, recipe, weights and network, broken and hostile in every way."""

import hashlib
import json
import os
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import edited, mutated, survives, trees, written
from onnx import TensorProto, helper
from safetensors.torch import save

from fer_search.assessment import read_bundle
from fer_search.bundle import FILES, write_onnx, write_recipe
from fer_search.errors import InvalidInput
from fer_search.predict import MANIFEST, Predictor
from fer_search.recipe import Recipe
from fer_search.runs import write_json
from fer_search.training.checkpoint import FILE_NAME, load_checkpoint, save_checkpoint
from fer_search.training.model import build_model
from fer_search.training.run import load_model

RECIPE = Recipe().replace({"backbone": "test_resnet", "pretrained": False, "fusion_width": 0, "stem_stride": 2})
CLASSES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


class Sum(torch.nn.Module):
    """A network that is small enough to be broken ten thousand times."""

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None] * torch.arange(7)


@pytest.fixture(scope="module")
def bundle(folder):
    """A bundle that predicts."""
    bundle = folder / "valid"
    bundle.mkdir()
    write_recipe(RECIPE, bundle / FILES["recipe"])
    (bundle / FILES["weights"]).write_bytes(save(build_model(RECIPE).state_dict()))
    write_onnx(Sum(), bundle / FILES["onnx"])
    chosen = {"plain": 1.0, "tta": 1.0}
    manifest = {
        "classes": CLASSES, "input": {"height": 48, "width": 48}, "data": {"source": "synthetic", "fingerprint": "x"},
        "prediction": {"views": "plain", "temperature": chosen, "val_accuracy": chosen, "val_nll": chosen},
        "files": {role: {"name": name, "sha256": sha256(bundle / name)} for role, name in FILES.items()},
    }  # fmt: skip
    write_json(bundle / MANIFEST, manifest)
    Predictor(bundle)
    read_bundle(bundle)
    return bundle


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_file(bundle, folder, role, content):
    """Return a copy of the bundle with another file, of which the manifest gives the right checksum."""
    changed = folder / f"with_{role}"
    if not changed.exists():
        shutil.copytree(bundle, changed)
    path = written(changed / FILES[role], content)
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][role]["sha256"] = sha256(path)
    (changed / MANIFEST).write_text(json.dumps(manifest))
    return changed


@given(st.data())
def test_any_manifest(folder, bundle, data):
    changed = folder / "with_manifest"
    if not changed.exists():
        shutil.copytree(bundle, changed)
    manifest = json.loads((bundle / MANIFEST).read_text())
    value = data.draw(edited(manifest) | trees(st.sampled_from([*manifest, "name", "sha256", "height"])))
    (changed / MANIFEST).write_bytes(json.dumps(value).encode("utf-8", "surrogatepass"))
    survives(lambda: read_bundle(changed))


@given(st.data())
def test_any_bytes_as_a_manifest(folder, bundle, data):
    content = data.draw(mutated((bundle / MANIFEST).read_bytes()))
    changed = folder / "with_manifest"
    if not changed.exists():
        shutil.copytree(bundle, changed)
    written(changed / MANIFEST, content)
    survives(lambda: Predictor(changed))


@given(st.data())
def test_any_network(folder, bundle, data):
    content = data.draw(mutated((bundle / FILES["onnx"]).read_bytes()) | st.binary(max_size=100))
    survives(lambda: Predictor(with_file(bundle, folder, "onnx", content)))


@given(st.data())
def test_any_weights(folder, bundle, data):
    whole = (bundle / FILES["weights"]).read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    content = data.draw(mutated(whole[:header])) + whole[header:]
    survives(lambda: load_model(RECIPE, written(folder / "x.safetensors", content)))


@given(st.data())
def test_any_winner(folder, bundle, data):
    content = data.draw(mutated((bundle / FILES["recipe"]).read_bytes()))
    survives(lambda: read_bundle(with_file(bundle, folder, "recipe", content)))


NAMES = ["../secret.onnx", "/etc/passwd", "sub/model.onnx", "..", ".", "", "a\0b", "link.onnx"]


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_reaches_no_file_outside_of_it(folder, bundle, tmp_path, name):
    changed = tmp_path / "bundle"
    shutil.copytree(bundle, changed)
    shutil.copy(changed / FILES["onnx"], tmp_path / "secret.onnx")
    (changed / "link.onnx").symlink_to(tmp_path / "secret.onnx")
    manifest = json.loads((changed / MANIFEST).read_text())
    manifest["files"]["onnx"]["name"] = name
    (changed / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InvalidInput, match=r"files.onnx"):
        Predictor(changed)


def network(node, initializers=()):
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 48, 48])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [images], [logits], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_network_whose_tensors_are_in_other_files_is_refused(folder, bundle, tmp_path, monkeypatch):
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 48 * 48))
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 1, 48, 48])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", str(4 * 48 * 48))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    monkeypatch.chdir(tmp_path)
    model = network(helper.make_node("Add", ["images", "w"], ["logits"]), [tensor])
    with pytest.raises(InvalidInput, match="tensors that are stored elsewhere"):
        Predictor(with_file(bundle, folder, "onnx", model.SerializeToString()))


def number(name, kind):
    return helper.make_tensor_value_info(name, kind, [])


def test_a_network_that_never_ends_is_refused(folder, bundle):
    state = helper.make_tensor_value_info("s", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["s", "s"], ["t"])],
        "body",
        [number("i", TensorProto.INT64), number("c", TensorProto.BOOL), state],
        [number("d", TensorProto.BOOL), helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    count = helper.make_tensor("count", TensorProto.INT64, [], [2**62])
    always = helper.make_tensor("always", TensorProto.BOOL, [], [True])
    model = network(helper.make_node("Loop", ["count", "always", "images"], ["logits"], body=body), [count, always])
    with pytest.raises(InvalidInput, match="control flow"):
        Predictor(with_file(bundle, folder, "onnx", model.SerializeToString()))


class Hostile:
    """What pickle would make a command of."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@given(st.data())
def test_any_checkpoint(folder, data):
    if not (folder / FILE_NAME).exists():
        save_checkpoint({"epoch": 3, "model": {"w": torch.zeros(3)}, "recipe": {"a": [1, "x"]}}, folder)
        shutil.copy(folder / FILE_NAME, folder / "valid.pt")
    content = data.draw(mutated((folder / "valid.pt").read_bytes()) | st.binary(max_size=100))
    written(folder / FILE_NAME, content)
    survives(lambda: load_checkpoint(folder))


def test_a_checkpoint_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": Hostile()}, tmp_path / FILE_NAME)
    with pytest.raises(InvalidInput, match="must be a complete checkpoint"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "executed").exists()
