"""What holds for every form: one fingerprint, the cache, the parquet form and sources that are nothing."""

import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fer_search.atomic import replacing
from fer_search.data.faces import EMOTIONS, Faces
from fer_search.data.fer2013 import load_faces
from fer_search.data.fer2013_csv import write_csv
from fer_search.data.fer2013_parquet import read_parquet, write_parquet
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput


@pytest.fixture(scope="module")
def faces() -> Faces:
    return synthesize(100, seed=1)


@pytest.fixture
def csv(faces, tmp_path) -> Path:
    write_csv(faces, tmp_path / "faces.csv")
    return tmp_path / "faces.csv"


def assert_equal(read: Faces, expected: Faces) -> None:
    np.testing.assert_array_equal(read.pixels, expected.pixels)
    np.testing.assert_array_equal(read.labels, expected.labels)
    np.testing.assert_array_equal(read.usage, expected.usage)


def change(path: Path, **replaced: object) -> None:
    table = pq.read_table(path)
    for name, values in replaced.items():
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, path)


def test_csv_parquet_and_folder_have_one_fingerprint_in_any_order(faces, csv, tmp_path):
    write_parquet(faces, tmp_path / "faces.parquet")
    for number, (image, label, usage) in enumerate(zip(faces.pixels, faces.labels, faces.usage, strict=True)):
        folder = tmp_path / "images" / ("train" if usage == "Training" else "test") / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{usage}_{number}.png")
    shuffled = faces.take(np.random.default_rng(0).permutation(len(faces)))
    read = [load_faces(tmp_path / name, cache_dir=tmp_path / "c") for name in ("faces.csv", "faces.parquet", "images")]
    assert {one.fingerprint() for one in [*read, faces, shuffled]} == {faces.fingerprint()}


def test_the_fingerprint_tells_any_other_pixel_label_usage_or_copy(faces):
    pixels, labels, usage = faces.pixels.copy(), faces.labels.copy(), faces.usage.copy()
    pixels[7, 3, 3] ^= 1
    labels[7] = (labels[7] + 1) % 7
    usage[7] = "Test"
    others = [
        Faces(pixels, faces.labels, faces.usage, faces.names),
        Faces(faces.pixels, labels, faces.usage, faces.names),
        Faces(faces.pixels, faces.labels, usage, faces.names),
        faces.take(np.append(np.arange(len(faces)), 0)),
    ]
    assert len({one.fingerprint() for one in [*others, faces]}) == 5
    assert len(faces.fingerprint()) == 16


def test_a_cached_load_imports_nothing_slow(csv, tmp_path):
    load_faces(csv, cache_dir=tmp_path)
    code = (
        "import sys, pathlib, fer_search.data.splits; from fer_search.data.fer2013 import load_faces;"
        f"load_faces({str(csv)!r}, cache_dir=pathlib.Path({str(tmp_path)!r})); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "ray", "optuna", "mlflow", "sklearn", "scipy", "imagehash", "pandas"} & set(loaded)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "faces.csv"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_faces_survive_pickling(faces):
    assert pickle.loads(pickle.dumps(faces)).fingerprint() == faces.fingerprint()


def test_synthetic_is_a_source_that_gives_everyone_their_own_copy():
    load_faces("synthetic").pixels[0] = 0
    assert load_faces("synthetic").fingerprint() == synthesize().fingerprint()


def test_the_second_load_comes_from_the_cache(faces, csv, tmp_path):
    first = load_faces(csv, cache_dir=tmp_path / "cache")
    (cached,) = (tmp_path / "cache").iterdir()
    # Garbage of the same size and age: only a load that does not read the csv succeeds.
    stat = csv.stat()
    csv.write_bytes(b"x" * stat.st_size)
    os.utime(csv, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = load_faces(str(csv), cache_dir=tmp_path / "cache")
    assert_equal(second, faces)
    assert second.names.tolist() == first.names.tolist()
    assert list((tmp_path / "cache").iterdir()) == [cached]
    second.pixels[0] = 0  # writable, as freshly decoded pixels are


def test_a_changed_csv_is_read_again(csv, tmp_path):
    load_faces(csv, cache_dir=tmp_path / "cache")
    other = synthesize(100, seed=2)
    write_csv(other, csv)
    assert_equal(load_faces(csv, cache_dir=tmp_path / "cache"), other)


@pytest.mark.parametrize("action", ["add", "change", "remove"])
def test_a_changed_folder_is_read_again(tmp_path, action):
    folder = tmp_path / "images" / "train" / "happy"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("L", (48, 48), number).save(folder / f"Training_{number}.png")
    before = load_faces(tmp_path / "images", cache_dir=tmp_path / "cache")
    if action == "remove":
        (folder / "Training_2.png").unlink()
    else:
        Image.new("L", (48, 48), 77).save(folder / ("Training_3.png" if action == "add" else "Training_2.png"))
        os.utime(folder / "Training_2.png", ns=(0, time.time_ns() + 1_000_000_000))
    after = load_faces(tmp_path / "images", cache_dir=tmp_path / "cache")
    assert len(after) == {"add": 4, "change": 3, "remove": 2}[action]
    assert after.fingerprint() != before.fingerprint()


def test_a_corrupt_cache_file_is_rebuilt_with_a_warning(faces, csv, tmp_path, caplog):
    load_faces(csv, cache_dir=tmp_path / "cache")
    (cached,) = (tmp_path / "cache").iterdir()
    whole = cached.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # a pixel
    for damaged in (b"", b"not parquet", whole[: len(whole) // 2], bytes(flipped)):
        cached.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert_equal(load_faces(csv, cache_dir=tmp_path / "cache"), faces)
        assert "rebuilding the unreadable cache file" in caplog.text
        assert cached.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_only_a_warning(faces, csv, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the directory should be")
    with caplog.at_level(logging.WARNING):
        assert_equal(load_faces(csv, cache_dir=tmp_path / "cache"), faces)
    assert "not cached" in caplog.text


def test_the_cache_directory_comes_from_the_environment(csv, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("FER_SEARCH_CACHE", str(tmp_path / "own"))
    for variable, directory in (
        ("FER_SEARCH_CACHE", tmp_path / "own"),
        ("XDG_CACHE_HOME", tmp_path / "xdg" / "fer_search"),
        ("HOME", tmp_path / "home" / ".cache" / "fer_search"),
    ):
        load_faces(csv)
        assert len(list(directory.iterdir())) == 1
        monkeypatch.delenv(variable)


def test_parquet_is_read_back_with_its_names(faces, tmp_path):
    write_parquet(faces, tmp_path / "faces.parquet")
    read = read_parquet(tmp_path / "faces.parquet")
    assert_equal(read, faces)
    assert read.names.tolist() == faces.names.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["faces.parquet"]


def test_parquet_with_other_but_equal_types_is_read(faces, tmp_path):
    path = tmp_path / "faces.parquet"
    write_parquet(faces, path)
    change(
        path,
        emotion=pa.array(faces.labels),
        pixels=pa.array([image.tobytes() for image in faces.pixels], pa.binary()),
        usage=pa.array(faces.usage.tolist()).dictionary_encode(),
    )
    assert_equal(read_parquet(path), faces)


def test_bad_values_in_parquet_are_reported_with_their_row(faces, tmp_path):
    path = tmp_path / "faces.parquet"
    write_parquet(faces, path)
    labels, usage = faces.labels.tolist(), faces.usage.tolist()
    labels[4], usage[9] = 9, "Validation"
    change(path, emotion=pa.array(labels), usage=pa.array(usage))
    with pytest.raises(InvalidInput) as caught:
        load_faces(path)
    assert caught.value.problems == (
        f"{path}: row 5: emotion: must be from 0 to 6, got 9",
        f"{path}: row 10: usage: must be one of Training, PublicTest, PrivateTest, Test, got 'Validation'",
    )


def test_parquet_columns_of_other_names_types_or_with_nulls_are_refused_at_once(faces, tmp_path):
    path = tmp_path / "faces.parquet"
    n = len(faces)
    columns = {"emotions": [1] * n, "usage": [None] * n, "name": ["x"] * n, "pixels": [b"short"] * n}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InvalidInput) as caught:
        load_faces(path)
    emotion, usage, pixels = caught.value.problems
    assert "emotion: must be one column (is 'emotions' meant to be it?)" in emotion
    assert "usage: must have no nulls" in usage
    assert "pixels: must hold values of type fixed_size_binary[2304]" in pixels


@pytest.mark.parametrize("content", [b"", b"PAR1 but nothing else"])
def test_a_file_that_is_no_parquet_is_refused(tmp_path, content):
    (tmp_path / "faces.parquet").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"faces\.parquet: file: must be a parquet file"):
        load_faces(tmp_path / "faces.parquet")


def test_parquet_without_rows_is_refused(faces, tmp_path):
    write_parquet(faces.take(np.arange(0)), tmp_path / "faces.parquet")
    with pytest.raises(InvalidInput, match="at least one row"):
        load_faces(tmp_path / "faces.parquet")


@pytest.mark.parametrize(
    ("name", "rule"), [("missing.csv", "nothing there"), ("faces.xlsx", "must be a .csv or .parquet")]
)
def test_a_missing_file_and_an_unknown_extension_are_refused(tmp_path, name, rule):
    (tmp_path / "faces.xlsx").write_bytes(b"x")
    with pytest.raises(InvalidInput, match=rule):
        load_faces(tmp_path / name)
