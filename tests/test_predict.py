"""`predict` as a user meets it: files, folders, stdin, whole photographs, annotated copies."""

import io
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageOps
from scipy.special import softmax

from fer_search.data.faces import EMOTIONS
from fer_search.data.synthetic import synthesize

# A photograph of the US Navy, in the public domain.
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
FACE = (260, 225)  # between eyes and mouth


@pytest.fixture
def predict(fer_search, bundle):
    def run(*arguments):
        return fer_search("predict", bundle, *arguments)

    return run


@pytest.fixture
def rows(predict):
    def run(*arguments):
        done = predict(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def faces(tmp_path):
    """A folder of faces, one of them in a folder of its own."""
    folder = tmp_path / "faces"
    (folder / "more").mkdir(parents=True)
    pixels = synthesize(50, seed=8).pixels
    for number, name in enumerate(("a.png", "b.jpg", "more/a.png")):
        Image.fromarray(pixels[number]).save(folder / name)
    return folder


@pytest.fixture
def pipe(monkeypatch):
    def run(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return run


def expected(bundle, image):
    """What the bundle's ONNX file says of an image that Pillow cuts square and shrinks."""
    face = ImageOps.fit(image.convert("L"), (48, 48), Image.Resampling.BILINEAR)
    images = np.asarray(face, np.float32)[None, None] / 255
    (logits,) = onnxruntime.InferenceSession(bundle / "model.onnx").run(None, {"images": images})
    return softmax(logits[0])


def probabilities_of(row):
    return [row["probabilities"][name] for name in EMOTIONS]


def test_folders_are_searched_and_files_are_taken_in_their_order(rows, faces, bundle):
    found = rows(faces / "more" / "a.png", faces)
    assert [row["image"] for row in found] == [str(faces / n) for n in ("more/a.png", "a.png", "b.jpg", "more/a.png")]
    for row in found:
        np.testing.assert_allclose(probabilities_of(row), expected(bundle, Image.open(row["image"])), atol=1e-4)
        assert row["emotion"] == max(row["probabilities"], key=row["probabilities"].get)
        assert "box" not in row
    assert np.std([probabilities_of(row) for row in found[1:]], axis=0).max() > 0.02  # the faces tell


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1", "CMYK", "I;16"])
def test_a_picture_of_any_kind_and_form_is_cut_square_around_its_centre(rows, bundle, tmp_path, mode):
    wide = Image.open(PHOTO).crop((0, 100, 500, 400))
    image = Image.fromarray(np.asarray(wide.convert("L"), np.uint16) // 2) if mode == "I;16" else wide.convert(mode)
    path = tmp_path / ("wide.tif" if mode == "CMYK" else "wide.png")
    image.save(path)
    (row,) = rows(path)
    np.testing.assert_allclose(probabilities_of(row), expected(bundle, Image.open(path)), atol=1e-4)


def test_an_image_is_piped_in(rows, faces, pipe):
    pipe((faces / "a.png").read_bytes())
    piped, file = rows("-", faces / "a.png")
    assert piped == {**file, "image": "-"}


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"", ["-"], "-: stdin: must be an image that is piped in, got 'nothing'"),
        (b"no image", ["-"], "-: image: must be a readable image"),
        (b"", ["-", "-"], "command line: -: must be given once, got 2"),
        (b"", ["nowhere.png"], "nowhere.png: path: must be an image file, a folder, or - for stdin"),
    ],
)
def test_what_is_no_picture_is_one_clear_message(predict, pipe, content, arguments, message):
    pipe(content)
    done = predict(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_all_pictures_that_cannot_be_read_are_named_at_once(predict, faces):
    (faces / "broken.png").write_bytes(b"x")
    (faces / "more" / "broken.jpg").write_bytes(b"x")
    done = predict(faces)
    assert done.returncode == 2
    assert done.stderr.count("must be a readable image") == 2


def test_a_turned_photograph_is_seen_upright(rows, tmp_path):
    upright = Image.open(PHOTO).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    upright.save(tmp_path / "upright.png")
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    first, second = rows(tmp_path / "upright.png", tmp_path / "turned.png")
    assert first["probabilities"] == second["probabilities"]
    upright.rotate(90, expand=True).save(tmp_path / "lying.png")
    assert rows(tmp_path / "lying.png")[0]["probabilities"] != first["probabilities"]


@pytest.fixture
def party(tmp_path):
    """A folder with a photograph of two people and one of nobody."""
    pytest.importorskip("dlib", reason="whole photographs need the extra 'photos'")
    photo, folder = Image.open(PHOTO), tmp_path / "party"
    folder.mkdir()
    two = Image.new("RGB", (2 * photo.width, photo.height))
    two.paste(photo, (0, 0))
    two.paste(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (photo.width, 0))
    two.save(folder / "two.png")
    Image.new("RGB", (300, 200), "gray").save(folder / "nobody.png")
    return folder


def test_every_face_of_a_photograph_is_a_row_and_a_photograph_without_one_says_so(rows, party):
    nobody, left, right = rows(party, "--faces")
    assert nobody == {"image": str(party / "nobody.png"), "box": None, "emotion": None, "probabilities": None}
    width = Image.open(PHOTO).width
    for row, middle in ((left, FACE[0]), (right, 2 * width - FACE[0])):
        box = row["box"]
        assert box[0] < middle < box[2]
        assert box[1] < FACE[1] < box[3]
        assert box[2] - box[0] == pytest.approx(box[3] - box[1], abs=1)
        assert 150 < box[2] - box[0] < 300  # the face itself is some 200 pixels high
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_what_is_predicted_of_a_face_is_that_of_its_box_cut_out(rows, party, bundle, tmp_path):
    *_, face, _ = rows(party / "two.png", "--faces")
    Image.open(party / "two.png").crop(face["box"]).save(tmp_path / "cut.png")
    (cut,) = rows(tmp_path / "cut.png")
    np.testing.assert_allclose(probabilities_of(face), probabilities_of(cut), atol=0.02)


def test_a_face_at_the_edge_keeps_its_box_inside_the_picture_and_a_large_photograph_its_own_pixels(rows, party):
    left, top = 170, 110
    close = Image.open(PHOTO).crop((left, top, 400, 340)).resize((2300, 2300))
    close.save(party / "close.png")
    *found, _ = rows(party / "close.png", party / "nobody.png", "--faces")
    assert len(found) == 1
    box = found[0]["box"]
    assert min(box) >= 0
    assert max(box) <= 2300
    assert box[0] < 10 * (FACE[0] - left) < box[2]


def test_the_table_shows_where_a_face_is_and_where_there_is_none(predict, party):
    done = predict(party, "--faces")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if ".png" in line] == ["nobody.png", "two.png", "two.png"]
    assert "no face" in done.stdout
    assert "disgust" in done.stdout


def test_only_photographs_without_a_face_are_no_error(predict, party):
    assert "no face" in predict(party / "nobody.png", "--faces").stdout


def test_without_the_detector_the_command_that_installs_it_is_shown(predict, faces, monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    done = predict(faces, "--faces")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'fer-search[photos]'" in done.stderr


def test_annotated_copies_keep_their_names_below_a_folder_and_the_pictures_are_left_alone(predict, faces, tmp_path):
    before = {path: path.read_bytes() for path in faces.rglob("*.*")}
    assert predict(faces, "--annotate", tmp_path / "out").returncode == 0
    copies = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert copies == ["a.png", "b.jpg", "more/a.png"]
    assert {path: path.read_bytes() for path in faces.rglob("*.*")} == before
    copy = np.asarray(Image.open(tmp_path / "out/a.png"))
    assert min(copy.shape[:2]) >= 240  # or a label could not be read
    assert (copy == (255, 204, 0)).all(-1).sum() > 1000


def test_the_box_of_an_annotated_photograph_is_where_the_row_says(rows, party, tmp_path):
    *_, first, second = rows(party, "--faces", "--annotate", tmp_path / "out")
    original = np.asarray(Image.open(party / "two.png"), int)
    changed = np.abs(np.asarray(Image.open(tmp_path / "out/two.png"), int) - original).sum(-1) > 0
    columns, lines = np.flatnonzero(changed.any(0)), np.flatnonzero(changed.any(1))
    assert columns[0] == pytest.approx(first["box"][0], abs=2)
    assert columns[-1] == pytest.approx(second["box"][2], abs=2)
    assert lines[-1] == pytest.approx(first["box"][3], abs=2)
    inside = [slice(edge + 40, edge + 180) for edge in (first["box"][1], first["box"][0])]
    assert not changed[tuple(inside)].any()  # the face can be seen
    untouched = np.asarray(Image.open(tmp_path / "out/nobody.png"))
    assert (untouched == untouched[0, 0]).all()


def test_one_picture_is_annotated_to_a_file(predict, faces, tmp_path, pipe):
    pipe((faces / "a.png").read_bytes())
    assert predict("-", "--annotate", tmp_path / "new/marked.webp").returncode == 0
    assert Image.open(tmp_path / "new/marked.webp").format == "WEBP"


@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        (["faces"], "x.png", "command line: annotate: must be a folder for 3 pictures, got 'x.png'"),
        (["faces"], "faces", "a.png: annotate: must not be there yet"),
        (
            ["faces/a.png", "faces/more/a.png"],
            "out",
            "out: annotate: must be the name of one picture only",
        ),
        (["faces/a.png"], "notes.txt", "notes.txt: annotate: must be a folder, or end as an image does"),
    ],
)
def test_an_annotated_copy_replaces_nothing(predict, faces, tmp_path, images, target, message):
    (tmp_path / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = predict(*images, "--annotate", target)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
