"""A bundle's card and the ways to load its weights that card and documentation show."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from huggingface_hub import ModelCard

from fer_search import load_model
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput
from fer_search.model_card import CARD, model_card
from fer_search.recipe import Recipe
from fer_search.training.model import build_model

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "predict.md"
BACKBONE = "test_efficientnet"


@pytest.fixture(scope="module")
def manifest(bundle):
    return json.loads((bundle / "manifest.json").read_text())


@pytest.fixture(scope="module")
def card(bundle):
    return ModelCard.load(bundle / CARD)


@pytest.fixture(scope="module")
def images():
    return synthesize(50, seed=8).pixels[:, None].astype(np.float32) / 255


def rows(card, first, *, num_cells):
    """Return the cells of the table rows of so many that begin with `first`, without the emphasis."""
    lines = [line.strip("| ") for line in card.text.splitlines() if line.startswith(f"| {first} |")]
    return [cells for line in lines if len(cells := [cell.strip(" *") for cell in line.split("|")]) == num_cells]


def test_the_metadata_of_the_card_are_the_figures_of_the_test_images(card, manifest):
    views = manifest["prediction"]["views"]
    found = {(each.dataset_split, each.metric_type): each.metric_value for each in card.data.eval_results}
    assert found == {
        (split, metric): manifest["metrics"][split][views][key]
        for split in ("public", "public_unique")
        for metric, key in (("accuracy", "accuracy"), ("f1", "macro_f1"))
    }
    assert card.data.pipeline_tag == "image-classification"
    assert "license" not in card.data.to_dict()  # which depends on the data


def test_every_split_has_its_interval_with_and_without_test_time_augmentation(card, manifest):
    names = {"validation": "search-validation", "public": "PublicTest", "public_unique": "PublicTest, without copies"}
    for split, name in names.items():
        for row, views in zip(rows(card, name, num_cells=8), ("plain", "tta"), strict=True):
            figures = manifest["metrics"][split][views]
            assert row[1].lower() == views
            assert int(row[2]) == figures["num_images"]
            assert row[3] == f"{figures['accuracy']:.1%}"
            assert row[4] == f"{figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}"
            assert row[7].endswith(f"({manifest['prediction']['temperature'][views]:.3f})")


def test_recall_is_given_for_every_class_with_the_number_of_its_images(card, manifest):
    figures = manifest["metrics"]["public"][manifest["prediction"]["views"]]
    labels = synthesize(200, seed=3).where("PublicTest").labels
    for label, name in enumerate(manifest["classes"]):
        ((_, number, recall, _),) = rows(card, name, num_cells=4)
        assert int(number) == (labels == label).sum()
        assert recall == ("none" if figures["recall"][name] is None else f"{figures['recall'][name]:.1%}")


def test_the_card_says_what_the_network_is_on_what_it_was_trained_and_how_to_do_so_again(card, manifest):
    network = timm.create_model(BACKBONE, in_chans=1, num_classes=7)
    assert f"| parameters | {sum(p.numel() for p in network.parameters()):,} that" in card.text
    assert manifest["data"]["fingerprint"] in card.text
    assert "seed 17" in card.text
    assert "device (cpu) and number of threads (3)" in card.text
    assert "fer-search train --recipe winner.toml --name again --data synthetic" in card.text
    assert "2024/1689" in card.text


def test_only_a_network_of_procedural_faces_is_said_to_be_of_no_use_on_photographs(bundle, card, manifest):
    recipe, sentence = Recipe.read(bundle / "winner.toml"), "of no use on photographs"
    other = {**manifest, "data": {**manifest["data"], "source": "/data/my faces.csv"}, "selection": None}
    assert sentence in card.text
    text = model_card(other, recipe)
    assert sentence not in text
    assert "--data 'my faces.csv'" in text
    assert "/data/" not in text  # a card is published
    assert "one seed (0)" in text


def test_a_class_whose_name_would_end_a_column_does_not(bundle, manifest):
    text = json.dumps(manifest).replace('"happy"', '"happy|glad"')
    assert r"| happy\|glad |" in model_card(json.loads(text), Recipe.read(bundle / "winner.toml"))


def test_a_network_without_all_of_timms_layers_does_not_say_that_timm_can_load_them(bundle, manifest):
    network = {**manifest["network"], "timm_prefix": None}
    assert "timm.create_model" not in model_card({**manifest, "network": network}, Recipe.read(bundle / "winner.toml"))


def code_blocks(text):
    return [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "import torch" not in block]


def logits_of(bundle, images):
    return onnxruntime.InferenceSession(bundle / "model.onnx").run(None, {"images": images})[0]


def features_of(bundle, images):
    """Return the last map of the network that the bundle's recipe describes, with the bundle's weights."""
    from safetensors.torch import load_file

    network = build_model(Recipe.read(bundle / "winner.toml"))
    network.load_state_dict(load_file(bundle / "model.safetensors"))
    with torch.no_grad():
        return network.eval().backbone((torch.tensor(images) - network.mean) / network.std)[-1]


def check(blocks, bundle, images):
    """Execute the blocks as they stand and compare what they make with the bundle's own network."""
    expected, found = logits_of(bundle, images), {}
    for block in blocks:
        names = {"images": torch.tensor(images) if "load_model" in block else images}
        exec(block, names)
        if "logits" in names:
            found["load_model" if "load_model" in block else "onnxruntime"] = names["logits"]
        if "backbone" in names:
            found["timm"] = names["backbone"]
    for way in ("load_model", "onnxruntime"):
        logits = found[way].detach().numpy() if way == "load_model" else found[way]
        np.testing.assert_allclose(logits, expected, atol=1e-3)
    stride = Recipe.read(bundle / "winner.toml").stem_stride
    backbone = found["timm"].eval()
    backbone.get_submodule("conv_stem").stride = (stride, stride)
    mean, std = (np.mean(backbone.pretrained_cfg[key]) for key in ("mean", "std"))
    with torch.no_grad():
        features = backbone.forward_features(((torch.tensor(images) - mean) / std).float())
    torch.testing.assert_close(features, features_of(bundle, images), atol=1e-4, rtol=1e-4)


def test_the_ways_to_load_it_that_the_card_shows_give_what_the_bundle_predicts(card, bundle, images, monkeypatch):
    monkeypatch.chdir(bundle)
    check(code_blocks(card.text), bundle, images)


def test_the_ways_to_load_it_that_the_documentation_shows_give_what_the_bundle_predicts(
    bundle, images, tmp_path, monkeypatch
):
    shutil.copytree(bundle, tmp_path / "runs/first/bundle")
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in code_blocks(PAGE.read_text()) if "runs/first/bundle" in block]
    assert max(len([line for line in block.splitlines() if line and "import" not in line]) for block in blocks) <= 3
    check([block.replace("tf_efficientnet_lite0", BACKBONE) for block in blocks], bundle, images)


def test_a_loaded_network_can_be_trained_further(bundle, images):
    model = load_model(bundle)
    model.network(torch.tensor(images)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.network.parameters())


def test_a_bundle_that_is_none_is_not_loaded(tmp_path):
    with pytest.raises(InvalidInput, match="bundle: must be a directory that export wrote"):
        load_model(tmp_path)
