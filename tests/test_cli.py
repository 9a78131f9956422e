"""The command line as a user meets it: judged by exit code, output and what it leaves behind."""

import json
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import timm

from fer_search.data.fer2013_csv import write_csv
from fer_search.data.synthetic import synthesize
from fer_search.recipe import Recipe


@pytest.fixture
def fails_with(fer_search, tmp_path):
    def check(expected, *arguments):
        before = sorted(tmp_path.rglob("*"))
        done = fer_search(*arguments)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"

    return check


def test_a_mistake_in_a_process_of_its_own_is_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fer_search", "data", "check", "nowhere.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "error: nowhere.csv: source: must be 'synthetic', a file or a directory, got 'nothing there'\n"
    )


@pytest.fixture
def csv(tmp_path):
    write_csv(synthesize(60), tmp_path / "faces.csv")
    return tmp_path / "faces.csv"


SMOKE = Path(__file__).parent.parent / "search_spaces" / "smoke.toml"
SMALL = '[base]\nbackbone = "test_resnet"\npretrained = false\nstem_stride = 2\nepochs = 3\n'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("emotion,pixels", "emotions,pixels", "emotion: must be a column"),
        ("emotion,pixels,Usage", "emotion,Usage", "pixels: must be a column"),
        ("Training\n", "Trainin\n", "must be"),
    ],
)
def test_a_wrong_column_is_named(csv, fails_with, old, new, message):
    csv.write_text(csv.read_text().replace(old, new, 1))
    fails_with(message, "data", "check", csv)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0," + " ".join(["7"] * 2303) + ",Training", "must be 2304 numbers, got 2303"),
        ("0," + " ".join(["7"] * 2303 + ["300"]) + ",Training", "300"),
        ("9," + " ".join(["7"] * 2304) + ",Training", "emotion"),
    ],
)
def test_a_bad_row_is_named_with_its_number(csv, fails_with, fer_search, row, message):
    csv.write_text(csv.read_text() + row + "\n")
    fails_with("data row 61", "data", "check", csv)
    assert message in fer_search("data", "check", csv).stderr


def test_an_empty_folder_and_a_corrupt_image_are_named(tmp_path, fails_with):
    (tmp_path / "empty").mkdir()
    fails_with("empty", "data", "check", "empty")
    for name in ("a", "b", "c", "d", "e", "f"):
        (tmp_path / "faces/train" / ("happy" if name < "d" else "sad")).mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces/train" / ("happy" if name < "d" else "sad") / f"{name}.jpg").write_bytes(b"no image")
    fails_with("a.jpg", "data", "check", "faces")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (SMALL + "max_lrr = 1.0\n[space.sam_rho]\nlow=0.01\nhigh=0.2\n", "base.max_lrr: must be a field of the recipe (did you mean 'max_lr'?)"),
        (SMALL + "[space.sam_rho]\nlow=0.01\nhigh=200.0\n", "space.sam_rho: at 200.0: sam_rho: must be less than or equal to 10"),
        (SMALL + "[space.epochs]\nlow=1\nhigh=9\n", "space.epochs: must not be searched, since it is the resource"),
        (SMALL + "[space.split_seed]\nlow=0\nhigh=9\n", "space.split_seed: must not be searched, since all trials"),
        (SMALL + 'sam_rho = 0.0\n[space.sam_adaptive]\nchoices=[false,true]\n', "sam_adaptive: must stay False, since it has no effect"),
        (SMALL + "[space.sam_rho]\nchoices=[0.0,0.05]\ndefault=0.05\n[space.sam_adaptive]\nchoices=[false,true]\n", "space: at sam_rho = 0.0, sam_adaptive = True"),
        ('[base]\npretrained=false\n[space.backbone]\nchoices=["tf_efficientnet_lite0","vit_tiny_patch16_224"]\n', "backbone: must be a convolutional timm model"),
        (SMALL + '[search]\nresource="batch_size"\n[space.sam_rho]\nlow=0.01\nhigh=0.2\n', "search.resource: must be epochs"),
        (SMALL + '[space.dropout]\nlow=0.0\nhigh=0.5\n[search]\nmetric="val_accuracy_ema"\n[space.ema_decay]\nlow=0.0\nhigh=0.999\n', "ema_decay: must be above 0, since trials are compared"),
        ('[space.backbone]\nchoices=["efficientnet_b0","efficientnet_bb"]\n', "backbone: must be the name of a timm model (did you mean 'efficientnet_b"),
        ("[space.sam_rho\n", "space.toml: file: must be TOML"),
        ("search = 3\nspace = 4\nbase = 5\n", "space.toml: base: must be a table, got 5"),
    ],
)  # fmt: skip
def test_a_wrong_space_file_is_refused_before_anything_starts(tmp_path, fails_with, space, message):
    (tmp_path / "space.toml").write_text(space)
    fails_with(message, "search", "space.toml", "--name", "s")


def test_more_than_any_node_has_is_refused_and_leaves_nothing_behind(cluster, tmp_path, fails_with):
    (tmp_path / "space.toml").write_text(SMALL + "[space.sam_rho]\nlow=0.01\nhigh=0.2\ndefault=0.05\n")
    arguments = ("search", "space.toml", "--name", "s", "--cpus-per-trial", "999", "--gpus-per-trial", "77")
    fails_with("cpus per trial: must be at most", *arguments)
    fails_with("gpus per trial: must be at most", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--name", "t", "max_lrr=1"), "max_lrr: must be a field of the recipe (did you mean 'max_lr'?)"),
        (("train", "--name", "t", "--tracking-uri", "./mlruns"), "tracking-uri: must begin with one of"),
        (("train", "--name", ".."), "name: must be up to 64 letters"),
        (("train", "--name", "a/b"), "name: must be up to 64 letters"),
        (("train", "--name", "t", "--data", "nowhere.csv"), "nowhere.csv"),
        (("train", "--name", "t", "backbone=vit_tiny_patch16_224"), "backbone: must be a convolutional timm model"),
        (
            ("search", SMOKE, "--name", "s", "--warm-start", "nothing"),
            "runs: name: must be that of a search or a training there",
        ),
        (
            ("search", SMOKE, "--name", "s", "--gpus-per-trial", "0", "--gpu-hours", "2"),
            "gpu-hours: must not be given where trials occupy no GPU, got 2.0",
        ),
        (("compare", "nothing"), "runs: name: must be that of a search or a training there"),
        (("importance", "nothing"), "runs: name: must be that of a search or a training there"),
        (("resume", "nothing"), "runs: name: must be that of a search or a training there"),
        (("retrain", "nothing"), "runs: name: must be that of a search or a training there"),
        (("export", "nothing"), "runs: name: must be that of a search or a training there"),
        (("predict", "nothing", "face.png"), "nothing: bundle: must be a directory that export wrote"),
        (
            ("evaluate", "nothing", "--split", "secret"),
            "split: must be one of validation, public, public_unique, private",
        ),
        (("ui",), "must be there: search or train first"),
        (("data", "synth", "no/such/folder/x.csv", "--num-faces", "10"), "num"),
    ],
)
def test_a_mistake_is_one_clear_message_and_exit_code_2(fails_with, arguments, message):
    fails_with(message, *arguments)


def test_who_misspells_a_run_is_told_which_there_are(tmp_path, fails_with):
    fails_with("must be that of a search or a training there, which has none, got 'first'", "compare", "first")
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "settings.json").touch()
    fails_with("runs: name: must be that of a search or a training there (did you mean 'first'?)", "status", "frist")
    fails_with("a training there (first, second), got 'xyz'", "export", "xyz")


def test_a_port_that_is_taken_is_said_before_mlflow_starts(tmp_path, fails_with):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        fails_with(
            f"command line: port: must be free: something is served there already, got {port}", "ui", "--port", port
        )


def test_the_version_is_that_of_the_installation(fer_search):
    done = fer_search("--version")
    assert (done.returncode, done.stdout) == (0, f"{version('fer_search')}\n")


def test_synthetic_faces_are_written_in_fer2013s_form_and_read_back(tmp_path, fer_search):
    assert fer_search("data", "synth", "faces.csv", "--num-faces", "70").returncode == 0
    assert (tmp_path / "faces.csv").read_text().startswith("emotion,pixels,Usage\n")
    done = fer_search("data", "check", "faces.csv")
    assert synthesize(70).fingerprint() in done.stdout


def test_a_recipe_is_printed_as_toml_that_can_be_trained(tmp_path, fer_search):
    done = fer_search("recipe", "epochs=3", "max_lr=1e-4")
    (tmp_path / "mine.toml").write_text(done.stdout)
    assert Recipe.read(tmp_path / "mine.toml") == Recipe().replace({"epochs": 3, "max_lr": 1e-4})


def test_a_network_is_summarized_part_by_part(fer_search):
    changes = ("backbone=test_efficientnet", "pretrained=false", "fusion_width=0")
    done = fer_search("model", "summary", "--json", *changes)
    summary = json.loads(done.stdout)
    reference = timm.create_model("test_efficientnet", in_chans=1, num_classes=7)
    assert summary["total"]["num_parameters"] == sum(p.numel() for p in reference.parameters())
    assert "the backbone's maps: 32 x 12 x 12" in fer_search("model", "summary", *changes).stdout


def test_the_design_is_printed_as_a_recipe(tmp_path, fer_search):
    (tmp_path / "design.toml").write_text(fer_search("recipe", "--design").stdout)
    assert Recipe.read(tmp_path / "design.toml") == Recipe.design()
