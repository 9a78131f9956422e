"""Another data set, coloured discs of several sizes in a folder per class, goes the whole way."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image, ImageDraw
from scipy.special import softmax

from fer_search.assessment import evaluate
from fer_search.bundle import FILES, export_bundle
from fer_search.data.faces import FER2013, ImageForm
from fer_search.data.fer2013 import load_faces
from fer_search.errors import InvalidInput
from fer_search.predict import Predictor
from fer_search.recipe import Recipe
from fer_search.record import describe_data, form_of, split_for
from fer_search.runs import read_json
from fer_search.searches import prepare
from fer_search.training.augment import augment, randaugment_chance
from fer_search.training.model import build_model
from fer_search.training.run import load_model
from fer_search.training.views import VIEWS
from fer_search.trainings import train, train_and_measure

CLASSES = ("[red]", "blue", "green")  # the first as no markup of a terminal
COLORS = {"[red]": (200, 40, 40), "blue": (40, 40, 200), "green": (40, 160, 40)}
SMALL = {
    "backbone": "test_resnet", "pretrained": False, "stem_stride": 2, "fusion_width": 0, "drop_path": 0.0,
    "image_size": 32, "epochs": 2, "batch_size": 8, "accumulation": 1, "max_lr": 0.02, "ema_decay": 0.0,
    "emotion_heads_weight": 0.3, "class_weight_power": 0.5, "randaugment_magnitude": 3.0, "erasing_probability": 0.2,
}  # fmt: skip
NO_CLASSES_OF_ITS_OWN = {"randaugment_probability_fear": 0.8, "randaugment_probability_sad": 0.8}
SPACE = """
[search]
num_trials = 2
[base]
backbone = "test_resnet"
pretrained = false
stem_stride = 2
fusion_width = 0
drop_path = 0.0
epochs = 3
batch_size = 8
accumulation = 1
"""


def draw_disc(path, color, rng):
    width, height = rng.integers(72, 121, 2).tolist()
    image = Image.new("RGB", (width, height), tuple(rng.integers(60, 140, 3).tolist()))
    radius = rng.integers(20, 33)
    box = [width // 2 - radius, height // 2 - radius, width // 2 + radius, height // 2 + radius]
    shade = np.clip(np.array(color) + rng.integers(-30, 31, 3), 0, 255)
    ImageDraw.Draw(image).ellipse(box, fill=tuple(shade.tolist()))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("data") / "discs", np.random.default_rng(0)
    for name, color in COLORS.items():
        for number in range(24):
            draw_disc(root / ("train" if number < 20 else "test") / name / f"{number}.png", color, rng)
    return root


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def recipe():
    return Recipe().replace({**SMALL, **NO_CLASSES_OF_ITS_OWN})


@pytest.fixture(scope="module")
def runs(own, recipe, tmp_path_factory):
    """A training on the discs, and its bundle; without MLflow, which has no part in it."""
    runs = tmp_path_factory.mktemp("own") / "runs"
    faces = load_faces(own)
    splits = split_for(faces, recipe)
    data = describe_data(str(own), faces, splits)
    train_and_measure(recipe, runs / "discs", splits, data=data, device="cpu")
    export_bundle(runs / "discs", runs / "discs" / "bundle")
    return runs


@pytest.fixture(scope="module")
def bundle(runs):
    return runs / "discs" / "bundle"


def test_the_training_learns_and_its_figures_name_its_classes(own, runs):
    result = read_json(runs / "discs" / "result.json")
    for split, count in (("validation", 6), ("public", 6)):
        figures = result["metrics"][split]["plain"]
        assert (figures["num_images"], figures["classes"]) == (count, list(CLASSES))
        assert set(figures["recall"]) == set(CLASSES)
        assert figures["accuracy"] > 0.5
    data = result["data"]
    size = load_faces(own).form.size
    assert (data["classes"], data["size"], data["channels"]) == (list(CLASSES), size, 3)
    assert data["public_label"] == "held out of Training (no official split)"
    assert result["leak_probe"] is None


def test_the_bundle_takes_images_of_its_data_and_predicts_as_torch_does(own, bundle, recipe):
    faces = load_faces(own)
    public = split_for(faces, recipe).public
    manifest = read_json(bundle / "manifest.json")
    size = faces.form.size
    expected = {"channels": 3, "height": size, "width": size}
    assert {key: manifest["input"][key] for key in expected} == expected
    assert manifest["classes"] == list(CLASSES)
    session = onnxruntime.InferenceSession(bundle / FILES["onnx"])
    assert session.get_inputs()[0].shape[1:] == [3, size, size]
    network = load_model(recipe, bundle / FILES["weights"], faces.form)
    images = torch.tensor(public.pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        views = [network(VIEWS[name](images)).numpy() for name in manifest["output"]["views"]]
    mean = np.log(softmax(np.stack(views), axis=-1).mean(0))
    expected = softmax((mean if len(views) > 1 else views[0]) / manifest["output"]["temperature"], axis=1)
    np.testing.assert_allclose(Predictor(bundle).predict(public.pixels), expected, atol=1e-4)


def test_its_tables_name_its_classes_and_files_of_any_shape_are_predicted(own, bundle, runs, tmp_path, fer_search):
    done = fer_search("evaluate", bundle, "--runs", runs)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["class", "prec.", "recall", *CLASSES] in rows
    assert [row[0] for row in rows if row and row[0] in CLASSES] == list(CLASSES)
    private = json.loads(fer_search("evaluate", bundle, "--split", "private", "--runs", runs, "--json").stdout)
    assert (private["label"], private["plain"]["num_images"]) == ("Test", 12)
    assert len((runs / "private_test_ledger.jsonl").read_text().splitlines()) == 1
    Image.open(own / "test" / "blue" / "23.png").resize((90, 75)).save(tmp_path / "wide.png")
    (row,) = json.loads(fer_search("predict", bundle, tmp_path / "wide.png", "--json").stdout)
    assert list(row["probabilities"]) == sorted(CLASSES)
    assert "[red]" in fer_search("predict", bundle, tmp_path / "wide.png").stdout
    shown = fer_search("data", "check", own).stdout
    rows = [line.split() for line in shown.splitlines()]
    assert ["split", *CLASSES, "total"] in rows
    assert ["Training", "20", "20", "20", "60"] in rows
    summary = json.loads(fer_search("model", "summary", "backbone=test_resnet", "--data", own, "--json").stdout)
    grey = json.loads(fer_search("model", "summary", "backbone=test_resnet", "--json").stdout)
    assert summary["total"]["flops"] != grey["total"]["flops"]


def test_a_bundle_is_not_measured_on_images_that_it_is_not_for(bundle, runs):
    with pytest.raises(InvalidInput) as caught:
        evaluate(bundle, data="synthetic", split="public", runs=runs)
    told = [problem.split(": must be")[0] for problem in caught.value.problems]
    assert told == ["synthetic: classes", "synthetic: size", "synthetic: channels"]


def test_a_run_that_noted_no_classes_is_one_on_fer2013(own, recipe):
    faces = load_faces(own)
    noted = describe_data(str(own), faces, split_for(faces, recipe))
    assert form_of(json.loads(json.dumps(noted))) == faces.form
    assert form_of({"source": "fer2013.csv", "fingerprint": "x", "public_label": "PublicTest"}) == FER2013


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"randaugment_magnitude": 5.0}, {"fear": 0.95, "sad": 0.9}),
        ({"randaugment_magnitude": 5.0, "randaugment_probability_fear": 0.8}, {"sad": 0.9}),
        ({"randaugment_magnitude": 5.0, "randaugment_probability": 0.9}, {"fear": 0.95}),
    ],
)
def test_settings_of_a_class_that_the_data_has_not_are_refused_while_they_would_act(own, tmp_path, changes, told):
    base = {key: value for key, value in SMALL.items() if key != "randaugment_magnitude"}
    common = changes.get("randaugment_probability", 0.8)
    with pytest.raises(InvalidInput) as caught:
        train(Recipe().replace({**base, **changes}), name="x", data=str(own), runs=tmp_path)
    assert list(caught.value.problems) == [
        f"recipe: randaugment_probability_{name}: must be {common}, as randaugment_probability, "
        f"since the data has no class {name!r}, got {value}"
        for name, value in told.items()
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("base", "domains", "told"),
    [
        ({}, "[space.max_lr]\nlow = 0.001\nhigh = 0.01", []),
        (NO_CLASSES_OF_ITS_OWN, "[space.randaugment_magnitude]\nlow = 0.0\nhigh = 9.0", []),
        (
            {},
            "[space.randaugment_magnitude]\nlow = 0.0\nhigh = 9.0",
            ["base.randaugment_probability_fear: must be 0.8", "base.randaugment_probability_sad: must be 0.8"],
        ),
        (
            {**NO_CLASSES_OF_ITS_OWN, "randaugment_magnitude": 9.0},
            "[space.randaugment_probability]\nlow = 0.1\nhigh = 1.0",
            [],
        ),
        (
            {"randaugment_probability_fear": 0.8, "randaugment_magnitude": 9.0},
            "[space.randaugment_probability_sad]\nlow = 0.1\nhigh = 1.0\ndefault = 0.8",
            ["space.randaugment_probability_sad: must not be searched, since the data has no class 'sad'"],
        ),
    ],
)
def test_so_are_they_in_a_space_where_randaugment_is_searched(own, tmp_path, base, domains, told):
    file = tmp_path / "space.toml"
    file.write_text(SPACE + "".join(f"{key} = {value}\n" for key, value in base.items()) + domains + "\n")
    if not told:
        assert prepare(file, data=str(own), overrides=None, num_trials=None).faces.classes == CLASSES
        return
    with pytest.raises(InvalidInput) as caught:
        prepare(file, data=str(own), overrides=None, num_trials=None)
    assert len(caught.value.problems) == len(told)
    for problem, beginning in zip(caught.value.problems, told, strict=True):
        assert problem.startswith(f"{file}: {beginning}")


def test_a_class_of_the_same_name_keeps_its_own_chance(recipe):
    own = recipe.replace({"randaugment_probability_fear": 0.25})
    found = randaugment_chance(torch.tensor([0, 1, 2, 1]), ("calm", "fear", "joy"), own)
    torch.testing.assert_close(found, torch.tensor([0.8, 0.25, 0.8, 0.25]))
    assert own.randaugment_probabilities(("calm", "fear", "joy")) == [0.8, 0.25, 0.8]


def test_the_colours_of_an_image_are_augmented_as_one(recipe):
    """Three equal channels stay equal: none is moved, stretched or equalized by itself."""
    strong = recipe.replace({"randaugment_magnitude": 20.0, "randaugment_operations": 6, "erasing_probability": 0.0})
    grey = torch.randint(256, (32, 40, 40, 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(32) % 3
    images, targets = augment(grey.expand(-1, -1, -1, 3), labels, CLASSES, strong, torch.Generator().manual_seed(1))
    assert (images.shape, targets.shape) == ((32, 3, 40, 40), (32, 3))
    torch.testing.assert_close(images, images[:, :1].expand(-1, 3, -1, -1), atol=1e-5, rtol=0)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    torch.testing.assert_close(targets.sum(1), torch.ones(32))


def test_a_network_that_shrinks_its_images_much_sees_all_of_their_pixels(recipe):
    """Bilinear interpolation alone would look at every third pixel or so, and see a fine pattern as plain."""
    model = build_model(recipe, ImageForm(CLASSES, 112, 3)).eval()
    images = torch.rand(1, 3, 112, 112, requires_grad=True)
    model(images).sum().backward()
    assert bool((images.grad != 0).any(1).all())
