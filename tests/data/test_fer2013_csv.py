import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from fer_search.data.faces import USAGES, Faces
from fer_search.data.fer2013 import load_faces
from fer_search.data.fer2013_csv import read_csv, write_csv
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 2304), dtype=np.uint8)
LABELS = (3, 4, 0)
USAGE = ("Training", "PublicTest", "PrivateTest")
BYTE = "must be a whole number from 0 to 255"


def text(pixels: NDArray[np.uint8]) -> str:
    return " ".join(str(value) for value in pixels.tolist())


def rows(**replaced: str) -> list[str]:
    """Three good rows; `second_pixels="1 2"` and the like replace a field of the second."""
    emotion = replaced.get("second_emotion", str(LABELS[1]))
    pixels = replaced.get("second_pixels", text(PIXELS[1]))
    usage = replaced.get("second_usage", USAGE[1])
    return [f"3,{text(PIXELS[0])},Training", f"{emotion},{pixels},{usage}", f"0,{text(PIXELS[2])},PrivateTest"]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def assert_the_three(faces: Faces) -> None:
    np.testing.assert_array_equal(faces.pixels, PIXELS.reshape(3, 48, 48))
    assert faces.labels.tolist() == list(LABELS)
    assert faces.usage.tolist() == list(USAGE)
    assert faces.names.tolist() == ["Training_1", "PublicTest_2", "PrivateTest_3"]


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(InvalidInput) as caught:
        read_csv(path)
    return caught.value.problems


def test_the_kaggle_csv_is_read_exactly(tmp_path):
    assert_the_three(read_csv(write(tmp_path / "fer2013.csv", ["emotion,pixels,Usage", *rows()])))


def test_column_names_with_leading_spaces_and_in_another_order_are_read(tmp_path):
    lines = [f"{label},{usage},{text(image)}" for label, usage, image in zip(LABELS, USAGE, PIXELS, strict=True)]
    assert_the_three(read_csv(write(tmp_path / "icml_face_data.csv", ["emotion, Usage, pixels", *lines])))


def test_quotes_windows_line_ends_a_byte_order_mark_and_extra_columns_are_read(tmp_path):
    lines = [
        f'{index},"{label}","{text(image)}",{usage}'
        for index, (label, usage, image) in enumerate(zip(LABELS, USAGE, PIXELS, strict=True))
    ]
    path = tmp_path / "fer2013.csv"
    path.write_bytes("\r\n".join(["\ufeffid,emotion,pixels,Usage", *lines, "", ""]).encode())
    assert_the_three(read_csv(path))


def test_pixels_apart_by_more_than_one_space_or_with_leading_zeros_are_read(tmp_path):
    loose = "  " + text(PIXELS[1]).replace(" ", "   ", 5) + " "
    padded = " ".join(f"{value:04d}" for value in PIXELS[1].tolist())
    for spelling in (loose, padded):
        assert_the_three(read_csv(write(tmp_path / "a.csv", ["emotion,pixels,Usage", *rows(second_pixels=spelling)])))


def test_a_large_csv_equals_pandas_and_python_split(tmp_path):
    faces = synthesize(400, seed=3)
    write_csv(faces, tmp_path / "faces.csv")
    frame = pd.read_csv(tmp_path / "faces.csv")
    read = read_csv(tmp_path / "faces.csv")
    expected = np.array([[int(value) for value in row.split()] for row in frame["pixels"]], dtype=np.uint8)
    np.testing.assert_array_equal(read.pixels.reshape(-1, 2304), expected)
    np.testing.assert_array_equal(read.labels, frame["emotion"])
    assert read.usage.tolist() == frame["Usage"].tolist()
    np.testing.assert_array_equal(read.pixels, faces.pixels)


def test_rows_of_train_csv_are_all_training(tmp_path):
    lines = [line.rpartition(",")[0] for line in rows()]
    faces = read_csv(write(tmp_path / "train.csv", ["emotion,pixels", *lines]))
    assert faces.usage.tolist() == ["Training"] * 3
    assert not faces.has_official_split


def test_a_directory_with_train_csv_is_read_and_its_unlabelled_test_csv_named(tmp_path, caplog):
    lines = [line.rpartition(",")[0] for line in rows()]
    write(tmp_path / "train.csv", ["emotion,pixels", *lines])
    write(tmp_path / "test.csv", ["pixels", text(PIXELS[0])])
    with caplog.at_level(logging.WARNING):
        assert len(load_faces(tmp_path, cache_dir=tmp_path / "cache")) == 3
    assert "test.csv: left out, it has no labels" in caplog.text


@pytest.mark.parametrize("name", ["fer2013.csv", "icml_face_data.csv"])
def test_a_directory_with_a_complete_csv_is_read_from_it(tmp_path, name):
    write(tmp_path / name, ["emotion,pixels,Usage", *rows()])
    write(tmp_path / "train.csv", ["emotion,pixels", *[line.rpartition(",")[0] for line in rows()[:1]]])
    assert_the_three(load_faces(tmp_path, cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("emotion,pixel,Usage", "pixels: must be a column (is 'pixel' meant to be it?)"),
        ("emotion,pixels,usage", "Usage: must be a column (is 'usage' meant to be it?)"),
        ("emotion,pixels,split", "Usage: must be a column, got"),
        ("label,pixels,Usage", "emotion: must be a column, got ['label', 'pixels', 'Usage']"),
        ("emotion,pixels,pixels", "pixels: must be the name of one column, got '2 of that name'"),
    ],
)
def test_a_missing_or_misspelled_column_is_named_with_its_nearest_match(tmp_path, header, expected):
    path = write(tmp_path / "faces.csv", [header, *rows()])
    assert any(problem.startswith(f"{path}: {expected}") for problem in problems_of(path))


def test_a_file_without_a_header_lacks_all_columns(tmp_path):
    assert len(problems_of(write(tmp_path / "faces.csv", rows()))) == 3


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        ({"second_pixels": text(PIXELS[1][:-1])}, "pixels: must be 2304 numbers, got 2303"),
        ({"second_pixels": text(PIXELS[1]) + " 7"}, "pixels: must be 2304 numbers, got 2305"),
        ({"second_pixels": ""}, "pixels: must be 2304 numbers, got 0"),
        ({"second_pixels": "300 " + text(PIXELS[1][1:])}, f"pixels: number 1 {BYTE}, got '300'"),
        ({"second_pixels": "256 " + text(PIXELS[1][1:])}, f"pixels: number 1 {BYTE}, got '256'"),
        ({"second_pixels": text(PIXELS[1][:-1]) + " 1000"}, f"pixels: number 2304 {BYTE}, got '1000'"),
        ({"second_pixels": "5 -1 " + text(PIXELS[1][2:])}, f"pixels: number 2 {BYTE}, got '-1'"),
        ({"second_pixels": "5 abc " + text(PIXELS[1][2:])}, f"pixels: number 2 {BYTE}, got 'abc'"),
        ({"second_pixels": "1.5 " + text(PIXELS[1][1:])}, f"pixels: number 1 {BYTE}, got '1.5'"),
        ({"second_pixels": "9" * 5000 + " " + text(PIXELS[1][1:])}, f"pixels: number 1 {BYTE}, got '999"),
        ({"second_emotion": "9"}, "emotion: must be a whole number from 0 to 6, got '9'"),
        ({"second_emotion": "happy"}, "emotion: must be a whole number from 0 to 6, got 'happy'"),
        ({"second_emotion": ""}, "emotion: must be a whole number from 0 to 6, got ''"),
        ({"second_usage": "Validation"}, f"Usage: must be one of {', '.join(USAGES)}, got 'Validation'"),
        ({"second_usage": "Prüfung"}, f"Usage: must be one of {', '.join(USAGES)}, got 'Prüfung'"),
        ({"second_usage": "PublicTest,more"}, "line: must have 3 fields, got 4"),
    ],
)
def test_a_bad_value_is_reported_with_its_row(tmp_path, replaced, expected):
    path = write(tmp_path / "faces.csv", ["emotion,pixels,Usage", *rows(**replaced)])
    (problem,) = problems_of(path)
    assert problem.startswith(f"{path}: data row 2 below the header: {expected}")
    assert len(problem) < len(str(path)) + 250


def test_a_surplus_pixel_beside_a_missing_one_is_reported_for_both_rows(tmp_path):
    good = rows()
    long, short = f"3,{text(PIXELS[0])} 7,Training", f"0,{text(PIXELS[2][:-1])},PrivateTest"
    path = write(tmp_path / "faces.csv", ["emotion,pixels,Usage", long, good[1], short])
    assert [problem.split(": ", 1)[1] for problem in problems_of(path)] == [
        "data row 1 below the header: pixels: must be 2304 numbers, got 2305",
        "data row 3 below the header: pixels: must be 2304 numbers, got 2303",
    ]


def test_rows_behind_a_malformed_line_keep_their_numbers(tmp_path):
    good = rows()
    lines = ["emotion,pixels,Usage", good[0], "3,1 2 3", good[1], good[2].replace("PrivateTest", "Private")]
    numbers = [
        problem.partition("data row ")[2].split()[0] for problem in problems_of(write(tmp_path / "a.csv", lines))
    ]
    assert numbers == ["2", "4"]


def test_all_problems_are_counted_and_the_first_twenty_listed(tmp_path):
    path = write(tmp_path / "faces.csv", ["emotion,pixels,Usage", *["9,1 2,Training"] * 30])
    problems = problems_of(path)
    assert len(problems) == 21
    assert problems[-1] == "... and 40 more"  # emotion and pixels of each row


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"emotion,pixels,Usage",
        b"emotion,pixels,Usage\n\n\n",
        b"\xff\xfee\x00m\x00o\x00",
        bytes(range(256)) * 400,
        b"\x89PNG\r\n\x1a\n" + bytes(5000),
        b"emotion,pixels,Usage\n" + np.random.default_rng(1).bytes(4_000_000),
        b"emotion,pixels,Usage\n" + b"1 " * 3_000_000,
    ],
    ids=["empty", "blank", "header only", "no rows", "utf-16", "binary", "png", "noise", "endless line"],
)
def test_a_file_that_is_no_csv_with_rows_is_refused(tmp_path, content):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"fer2013\.csv: "):
        load_faces(path, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_text_that_is_not_utf8_is_reported_with_its_row(tmp_path):
    path = tmp_path / "faces.csv"
    good = rows()
    path.write_bytes(
        "\n".join(["emotion,pixels,Usage", good[0], ""]).encode() + f"3,{text(PIXELS[1])},".encode() + b"\xe9"
    )
    (problem,) = problems_of(path)
    assert "data row 2 below the header: Usage: must be one of" in problem


def test_written_csv_is_read_back_with_every_usage(tmp_path):
    faces = synthesize(60, seed=2)
    faces = Faces(faces.pixels, faces.labels, np.array(USAGES)[np.arange(60) % 4], faces.names)
    write_csv(faces, tmp_path / "new" / "faces.csv")
    assert read_csv(tmp_path / "new" / "faces.csv").fingerprint() == faces.fingerprint()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["faces.csv"]
