import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_search.data.faces import EMOTIONS, Faces
from fer_search.data.fer2013 import load_faces
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput


def write_folder(faces: Faces, root: Path, *, with_prefix: bool = True, suffix: str = ".png") -> None:
    for number in range(len(faces)):
        usage = str(faces.usage[number])
        folder = root / ("train" if usage == "Training" else "test") / EMOTIONS[faces.labels[number]]
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{usage}_{number}" if with_prefix else f"im{number}"
        Image.fromarray(faces.pixels[number]).save(folder / (name + suffix))


@pytest.fixture
def faces() -> Faces:
    return synthesize(80, seed=5)


@pytest.fixture
def root(faces, tmp_path) -> Path:
    write_folder(faces, tmp_path / "images")
    return tmp_path / "images"


def problems_of(root: Path) -> tuple[str, ...]:
    with pytest.raises(InvalidInput) as caught:
        load_faces(root, cache_dir=root.parent / "cache")
    assert not (root.parent / "cache").exists()
    return caught.value.problems


def test_a_folder_has_the_faces_it_was_written_from(faces, root, caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        read = load_faces(root, cache_dir=tmp_path / "cache")
    assert read.fingerprint() == faces.fingerprint()
    assert read.has_official_split
    assert not caplog.records


def test_emotions_are_mapped_by_name_and_not_alphabetically(root, tmp_path):
    read = load_faces(root, cache_dir=tmp_path / "cache")
    for name, label, image in zip(read.names, read.labels, read.pixels, strict=True):
        assert name.split("/")[1] == EMOTIONS[label]
        np.testing.assert_array_equal(np.asarray(Image.open(root / name)), image)


def test_without_prefixes_the_test_images_are_merged_and_one_warning_says_so(faces, tmp_path, caplog):
    write_folder(faces, tmp_path / "images", with_prefix=False)
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            read = load_faces(tmp_path / "images", cache_dir=tmp_path / "cache")
        assert set(read.usage) == {"Training", "Test"}
        assert not read.has_official_split
        assert len(caplog.records) == 1
        assert "official split is lost" in caplog.text


def test_one_file_without_a_prefix_merges_its_split(faces, root, tmp_path):
    first = next((root / "test").rglob("*.png"))
    first.rename(first.with_name("other.png"))
    assert set(load_faces(root, cache_dir=tmp_path / "cache").usage) == {"Training", "Test"}


def test_jpeg_images_decode_as_pillow_does(faces, tmp_path):
    write_folder(faces, tmp_path / "images", suffix=".JPG")
    read = load_faces(tmp_path / "images", cache_dir=tmp_path / "cache")
    assert len(read) == len(faces)
    for name, image in zip(read.names, read.pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "images" / name).convert("L")), image)


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_grey_images_stored_with_three_channels_or_a_palette_are_read(faces, root, mode, tmp_path):
    path = next(root.rglob("*.png"))
    Image.open(path).convert(mode).save(path)
    assert load_faces(root, cache_dir=tmp_path / "cache").fingerprint() == faces.fingerprint()


def test_a_folder_without_test_images_is_all_training(root, tmp_path):
    (root / "test").rename(tmp_path / "elsewhere")
    assert set(load_faces(root, cache_dir=tmp_path / "cache").usage) == {"Training"}


def test_hidden_files_are_passed_over(faces, root, tmp_path):
    (root / "train" / ".DS_Store").write_bytes(b"x")
    (root / "train" / "happy" / ".DS_Store").write_bytes(b"x")
    assert len(load_faces(root, cache_dir=tmp_path / "cache")) == len(faces)


def test_every_file_that_is_no_grey_face_is_named(root):
    folder = root / "train" / "happy"
    Image.new("L", (47, 48)).save(folder / "Training_small.png")
    Image.new("RGB", (48, 48), (200, 0, 0)).save(folder / "Training_red.png")
    Image.new("RGBA", (48, 48)).save(folder / "Training_alpha.png")
    (folder / "Training_broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    Image.new("L", (48, 48)).save(folder / "Training_cut.png")
    (folder / "Training_cut.png").write_bytes((folder / "Training_cut.png").read_bytes()[:60])
    problems = problems_of(root)
    assert len(problems) == 5
    for name, rule in [
        ("small.png", "size: must be 48x48 pixels, got (47, 48)"),
        ("red.png", "mode: must be grey, with three equal channels at most"),
        ("alpha.png", "mode: must be 8-bit grey, got 'RGBA'"),
        ("broken.jpg", "file: must be a readable image"),
        ("cut.png", "file: must be a readable image"),
    ]:
        assert any(f"Training_{name}: {rule}" in problem for problem in problems), name


def test_an_unknown_class_folder_is_named_with_its_nearest_match(root):
    (root / "train" / "happy").rename(root / "train" / "Hapy")
    (problem,) = problems_of(root)
    assert "(is 'happy' meant?), got 'Hapy'" in problem


def test_a_file_that_is_no_image_is_refused(root):
    (root / "train" / "sad" / "notes.txt").write_text("x")
    (problem,) = problems_of(root)
    assert "train/sad/notes.txt: must be an image" in problem


def test_a_directory_with_nothing_known_in_it_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (problem,) = problems_of(tmp_path / "images")
    assert "must hold fer2013.csv" in problem


def test_empty_class_folders_are_refused(tmp_path):
    (tmp_path / "images" / "train" / "happy").mkdir(parents=True)
    (problem,) = problems_of(tmp_path / "images")
    assert "must have images" in problem
