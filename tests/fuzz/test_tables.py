"""FER2013 as csv, parquet and folders, and learning curves, broken in every way."""

import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import edited, mutated, survives, trees, written
from PIL import Image

from fer_search.data.fer2013 import load_faces
from fer_search.data.fer2013_csv import read_csv, write_csv
from fer_search.data.fer2013_folder import list_images, read_images
from fer_search.data.fer2013_parquet import read_parquet, write_parquet
from fer_search.data.synthetic import synthesize
from fer_search.emulator import recorded_space
from fer_search.errors import InvalidInput
from fer_search.pictures import Source, open_picture
from fer_search.recorded_curves import METADATA, RecordedCurves

FACES = synthesize(60).take(np.arange(3))


def content_of(write, path):
    write(FACES, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def csv(folder):
    return content_of(write_csv, folder / "valid.csv")


@pytest.fixture(scope="module")
def parquet(folder):
    return content_of(write_parquet, folder / "valid.parquet")


@pytest.fixture(scope="module")
def curves(folder):
    space = {"sam_rho": {"low": 0.0, "high": 0.2}}
    table = {"search": {"metric": "val_accuracy"}, "base": {"epochs": 3}, "space": space}
    metrics = {"val_accuracy": np.linspace(0.1, 0.5, 36).reshape(12, 3)}
    recorded = RecordedCurves(table, [{"sam_rho": n / 60} for n in range(12)], {"onecycle": metrics}, "x")
    recorded.write(folder / "valid_curves.parquet")
    return (folder / "valid_curves.parquet").read_bytes()


def images():
    found = []
    face = Image.fromarray(FACES.pixels[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode, kind, more in (
        ("L", "PNG", {}), ("L", "JPEG", {"exif": exif}), ("RGB", "JPEG", {}), ("P", "PNG", {}), ("RGBA", "PNG", {}),
        ("I;16", "PNG", {}), ("CMYK", "JPEG", {}), ("L", "BMP", {}), ("RGB", "WEBP", {}), ("1", "PNG", {}),
        ("P", "GIF", {}), ("L", "TIFF", {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        face.convert(mode).save(buffer, kind, **more)
        found.append(buffer.getvalue())
    return found


IMAGES = images()


@given(st.data())
def test_any_csv(folder, csv, data):
    content = data.draw(mutated(csv) | st.binary(max_size=200) | mutated(csv[:60]))
    survives(lambda: read_csv(written(folder / "x.csv", content)))


@given(st.data())
def test_any_parquet(folder, parquet, data):
    content = data.draw(mutated(parquet) | st.binary(max_size=200))
    survives(lambda: read_parquet(written(folder / "x.parquet", content)))


COLUMNS = {
    "emotion": [0, 1], "usage": ["Training", "PublicTest"], "name": ["a", "b"], "pixels": [bytes(2304), bytes(2304)]
}  # fmt: skip
ODD = st.sampled_from(
    [
        [None, None], [1.5, float("nan")], ["0", "x"], [300, -1], [[1], [2]], [{"a": 1}, {"a": None}], [b"", b"\xff"],
        [True, False], [2**62, 0], ["Training\0", "é"],
    ]
)  # fmt: skip


@given(
    odd=st.dictionaries(st.sampled_from(sorted(COLUMNS)), ODD),
    compression=st.sampled_from(["none", "zstd", "snappy"]),
    twice=st.booleans(),
)
def test_a_parquet_file_with_any_columns(folder, odd, compression, twice):
    table = pa.table({**COLUMNS, **odd})
    if twice:
        table = table.append_column("usage", table["name"])
    pq.write_table(table, folder / "y.parquet", compression=compression)
    survives(lambda: load_faces(folder / "y.parquet"))


def test_a_parquet_file_whose_text_is_none_is_refused(folder):
    name = pa.array([b"a", b"\x80"]).view(pa.string())
    pq.write_table(pa.table({**COLUMNS, "name": name}), folder / "w.parquet")
    with pytest.raises(InvalidInput, match=r"name: must hold values of type string"):
        read_parquet(folder / "w.parquet")


def picture_of(path):
    return open_picture(Source(path, path.name))


@given(st.data())
def test_any_image(folder, data):
    content = data.draw(st.sampled_from(IMAGES).flatmap(mutated) | st.binary(max_size=200) | st.sampled_from(IMAGES))
    survives(lambda: picture_of(written(folder / "x.png", content)))


@given(st.data())
def test_any_folder(folder, data):
    (folder / "data" / "train" / "fear").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.jpg"):
        written(folder / "data" / "train" / "fear" / name, data.draw(st.sampled_from(IMAGES).flatmap(mutated)))
    survives(lambda: read_images(folder / "data", list_images(folder / "data")))


def load_curves(path):
    return recorded_space(RecordedCurves.read(path), source=path)


@given(st.data())
def test_any_file_of_learning_curves(folder, curves, data):
    content = data.draw(mutated(curves))
    survives(lambda: load_curves(written(folder / "x_curves.parquet", content)))


@given(st.data())
def test_learning_curves_that_describe_themselves_in_any_way(folder, curves, data):
    whole = pq.read_table(io.BytesIO(curves))
    about = json.loads(whole.schema.metadata[METADATA])
    changed = data.draw(edited(about) | trees(st.sampled_from(sorted(about))))
    table = whole.replace_schema_metadata({METADATA: json.dumps(changed).encode("utf-8", "surrogatepass")})
    dropped = data.draw(st.sampled_from([None, None, None, "point", "schedule", "epoch", "val_accuracy"]))
    pq.write_table(table if dropped is None else table.drop([dropped]), folder / "z.parquet")
    survives(lambda: load_curves(folder / "z.parquet"))


@pytest.mark.parametrize("make", ["fifo", "device", "folder", "loop", "dangling", "large"])
@pytest.mark.parametrize("read", [read_csv, read_parquet, RecordedCurves.read, picture_of])
def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path, make, read):
    path = tmp_path / "x"
    match make:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
        case "large":
            with path.open("wb") as file:
                file.truncate(2**40)  # takes no space
    with pytest.raises(InvalidInput, match=r"x: file: must (be|exist)"):
        read(path)


def test_an_image_that_unpacks_to_gigabytes_is_refused_by_its_header(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 10**6
    with pytest.raises(InvalidInput, match="must have at most 64,000,000 pixels, got '10000 x 10000'"):
        picture_of(tmp_path / "bomb.png")
