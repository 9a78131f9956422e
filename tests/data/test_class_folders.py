"""Own data: a folder per class, of any size, grey or in colour."""

import logging

import numpy as np
import pytest
from PIL import Image, ImageOps

from fer_search.data.audit import audit
from fer_search.data.faces import EMOTIONS, FER2013, ImageForm
from fer_search.data.fer2013 import load_faces
from fer_search.data.splits import split_faces
from fer_search.errors import InvalidInput
from fer_search.pictures import centre_square, cut_face, find_pictures, open_picture


def write(path, size, *, mode="RGB", seed=0):
    """Write an image of random blocks, other ones in each channel."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)
    image.convert(mode).save(path)
    return path


def write_classes(root, names, *, size=(40, 40), mode="RGB", count=4, suffix=".png"):
    for number, (name, index) in enumerate((name, index) for name in names for index in range(count)):
        write(root / name / f"{index}{suffix}", size, mode=mode, seed=number)
    return root


@pytest.fixture
def load(tmp_path):
    return lambda root: load_faces(root, cache_dir=tmp_path / "cache")


@pytest.fixture
def problems_of(load, tmp_path):
    def found(root):
        with pytest.raises(InvalidInput) as caught:
            load(root)
        assert not (tmp_path / "cache").exists()
        return caught.value.problems

    return found


def test_classes_are_those_of_the_folders_and_pixels_those_of_the_files(load, tmp_path, caplog):
    root = write_classes(tmp_path / "own" / "train", ["dog", "cat", "Eel"]).parent
    write(root / "test" / "cat" / "x.png", (40, 40), seed=99)
    with caplog.at_level(logging.WARNING):
        faces = load(root)
        again = load(root)  # from the cache
    assert not caplog.records
    assert faces.form == again.form == ImageForm(("Eel", "cat", "dog"), 40, 3)
    assert faces.fingerprint() == again.fingerprint()
    for name, label, usage, pixels in zip(faces.names, faces.labels, faces.usage, again.pixels, strict=True):
        split, folder, _ = name.split("/")
        assert (usage, faces.classes[label]) == ({"train": "Training", "test": "Test"}[split], folder)
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(root / name)))


def test_folders_of_classes_alone_are_all_training_and_a_part_is_held_out(load, tmp_path, caplog):
    root = write_classes(tmp_path / "own", ["a", "b"], count=10)
    (root / "README.txt").write_text("x")
    with caplog.at_level(logging.WARNING):
        faces = load(root)
    assert [record.getMessage() for record in caplog.records] == [f"{root}: left out: README.txt"]
    assert set(faces.usage) == {"Training"}
    splits = split_faces(faces, seed=0, validation_fraction=0.2)
    assert splits.label == "held out of Training (no official split)"
    assert [len(part) for part in (splits.fit, splits.validation, splits.public)] == [14, 4, 2]
    assert all(set(part.labels) == {0, 1} for part in (splits.fit, splits.validation, splits.public))
    assert splits.fit.classes == ("a", "b")
    assert audit(faces).counts == {"Training": {"a": 10, "b": 10}}


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P"])
def test_data_of_grey_files_alone_is_grey_however_they_are_stored(mode, load, tmp_path):
    root = write_classes(tmp_path / "own", ["a", "b"], mode="L")
    changed = Image.open(root / "a" / "0.png").convert(mode)
    changed.save(root / "a" / "0.png")
    faces = load(root)
    assert faces.form == ImageForm(("a", "b"), 40, 1)
    np.testing.assert_array_equal(faces.pixels[0], np.asarray(changed.convert("L")))


def test_one_coloured_file_makes_the_data_coloured(load, tmp_path):
    root = write_classes(tmp_path / "own", ["a", "b"], mode="L", suffix=".jpg")
    write(root / "b" / "red.png", (40, 40))
    faces = load(root)
    assert faces.form.channels == 3
    grey = faces.pixels[faces.names == "a/0.jpg"][0]
    np.testing.assert_array_equal(grey, np.asarray(Image.open(root / "a" / "0.jpg"))[:, :, None].repeat(3, 2))


def test_other_sizes_are_cut_and_resized_to_the_median_side_and_a_warning_says_so(load, tmp_path, caplog):
    root = tmp_path / "own"
    sizes = [(30, 60), (50, 40), (44, 44), (100, 300), (38, 38), (41, 41)]
    for number, size in enumerate(sizes):
        write(root / "ab"[number % 2] / f"{number}.png", size, seed=number)
    with caplog.at_level(logging.WARNING):
        faces = load(root)
    (record,) = caplog.records
    assert "30 x 60 to 100 x 300 pixels are cut square and resized to 40 x 40" in record.getMessage()
    assert faces.form.size == 40  # of 30, 38, 40, 41, 44, 100
    for name, pixels in zip(faces.names, faces.pixels, strict=True):
        image = Image.open(root / name)
        side, middle = min(image.size), (image.width / 2, image.height / 2)
        box = (middle[0] - side / 2, middle[1] - side / 2, middle[0] + side / 2, middle[1] + side / 2)
        expected = image.resize((40, 40), Image.Resampling.BILINEAR, box=box)
        np.testing.assert_allclose(pixels, np.asarray(expected), atol=1)
        picture = open_picture(*find_pictures([root / name])).convert("RGB")
        np.testing.assert_array_equal(pixels, cut_face(picture, centre_square(picture), size=40))  # as predict sees it


def test_no_image_is_kept_larger_than_published_networks_take(load, tmp_path):
    root = write_classes(tmp_path / "own", ["a", "b"], size=(300, 260), count=3)
    assert load(root).form.size == 224


def test_an_image_that_a_camera_held_sideways_is_made_upright(load, tmp_path):
    root = write_classes(tmp_path / "own", ["a", "b"])
    image = Image.open(root / "a" / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "a" / "0.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(root / "a" / "0.png")))
    np.testing.assert_array_equal(load(root).pixels[0], expected)


def test_the_fingerprint_tells_classes_and_shapes_apart(load, tmp_path):
    found = [
        load(write_classes(tmp_path / "one", ["a", "b"])),
        load(write_classes(tmp_path / "two", ["a", "c"])),
        load(write_classes(tmp_path / "three", ["a", "b"], size=(48, 48))),
        load(write_classes(tmp_path / "four", ["a", "b"], mode="L")),
    ]
    assert len({faces.fingerprint() for faces in found}) == 4
    assert found[0].fingerprint() == load(write_classes(tmp_path / "five", ["a", "b"])).fingerprint()


@pytest.mark.parametrize("size", [(48, 48), (64, 64)])
def test_the_seven_emotions_keep_fer2013s_order_at_any_size(size, load, tmp_path):
    faces = load(write_classes(tmp_path / "own" / "train", EMOTIONS, size=size, mode="L").parent)
    assert faces.form == ImageForm(EMOTIONS, size[0], 1)
    assert (faces.form == FER2013) == (size == (48, 48))
    assert [name.split("/")[1] for name in faces.names] == [EMOTIONS[label] for label in faces.labels]


@pytest.mark.parametrize(
    "names",
    [
        ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"),
        ("happy", "neutral", "sad"),
        ("cat", "dog"),
    ],
)
def test_classes_that_are_not_all_of_the_emotions_are_their_own_at_fer2013s_size_too(names, load, tmp_path):
    faces = load(write_classes(tmp_path / "own" / "train", names, size=(48, 48), mode="L").parent)
    assert faces.classes == names


def test_a_slip_in_the_name_of_an_emotion_is_told_where_the_images_are_fer2013s(problems_of, load, tmp_path):
    names = ["Happy" if name == "happy" else name for name in EMOTIONS]
    (problem,) = problems_of(write_classes(tmp_path / "fer" / "train", names, size=(48, 48), mode="L").parent)
    assert "(is 'happy' meant?), got 'Happy'" in problem
    other = load(write_classes(tmp_path / "own" / "train", names, size=(64, 64)).parent)
    assert other.classes == tuple(sorted(names))


def test_every_problem_of_own_data_is_named(problems_of, tmp_path):
    root = write_classes(tmp_path / "own" / "train", ["a", "b"], count=3).parent
    (root / "train" / "empty").mkdir()
    (root / "train" / "notes.txt").write_text("x")
    (root / "train" / "a" / "list.csv").write_text("x")
    write(root / "test" / "c" / "1.png", (40, 40))
    problems = problems_of(root)
    assert len(problems) == 4
    for line in (
        "train/notes.txt: must be a folder of a class",
        "train/a/list.csv: must be an image (.jpg, .jpeg, .png), got 'list.csv'",
        "test/c: must be a folder of a class, one of a, b, empty, got 'c'",
        "train/empty: must have at least 3 images to learn from and to be judged on, got 0",
    ):
        assert any(line in problem for problem in problems), line


def test_one_class_is_no_data(problems_of, tmp_path):
    (problem,) = problems_of(write_classes(tmp_path / "own", ["cat"]))
    assert "classes: must be two folders of images at least, got ['cat']" in problem


def test_files_that_are_no_images_are_named(problems_of, tmp_path):
    root = write_classes(tmp_path / "own", ["a", "b"])
    (root / "a" / "broken.png").write_bytes(b"x")
    Image.fromarray(np.zeros((40, 40), dtype=np.uint16)).save(root / "a" / "deep.png")
    problems = problems_of(root)
    assert len(problems) == 2
    assert "broken.png: image: must be a readable image" in problems[0]
    assert "deep.png: mode: must have 8 bits a channel" in problems[1]
    for name in ("broken.png", "deep.png"):
        (root / "a" / name).unlink()
    cut = root / "b" / "0.png"
    cut.write_bytes(cut.read_bytes()[:100])
    (problem,) = problems_of(root)
    assert "b/0.png: image: must be a readable image" in problem
