from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest

from fer_search.data.faces import EMOTIONS, Faces
from fer_search.data.fer2013_parquet import write_parquet
from fer_search.data.soft_labels import SoftLabels, read_soft_labels, write_soft_labels
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput

SPLIT = {"split_seed": 3, "validation_fraction": 0.1, "drop_test_duplicates": True}


@pytest.fixture(scope="module")
def faces() -> Faces:
    """Faces of which the last is a copy of the first, with another label."""
    drawn = synthesize(60, seed=2)
    pixels = drawn.pixels.copy()
    pixels[-1] = pixels[0]
    labels = drawn.labels.copy()
    labels[-1] = (labels[0] + 1) % 7
    return Faces(pixels, labels, drawn.usage, drawn.names)


@pytest.fixture(scope="module")
def probabilities(faces):
    drawn = np.random.default_rng(0).dirichlet(np.ones(7), len(faces)).astype(np.float32)
    drawn[-1] = drawn[0]
    return drawn


@pytest.fixture(scope="module")
def labels(faces, probabilities):
    return SoftLabels.of(faces, probabilities, fingerprint=faces.fingerprint(), split=SPLIT, made={"by": "a test"})


@pytest.fixture
def file(labels, tmp_path):
    write_soft_labels(labels, tmp_path / "soft.parquet")
    return tmp_path / "soft.parquet"


def test_every_image_gets_its_own_back_from_a_file_whatever_the_order(faces, probabilities, labels, file):
    read = read_soft_labels(file)
    order = np.random.default_rng(1).permutation(len(faces))[:40]
    attached = read.attached(faces.take(order), source=file)
    np.testing.assert_array_equal(attached.soft_labels, probabilities[order])
    assert len(read.images) == len(faces) - 1  # copies are one image
    assert (read.digest(), read.made, read.split) == (labels.digest(), {"by": "a test"}, SPLIT)
    np.testing.assert_array_equal(attached.take(np.array([5, 2])).soft_labels, probabilities[order[[5, 2]]])
    assert attached.fingerprint() == faces.take(order).fingerprint()


def test_an_image_without_one_is_an_error(labels):
    others = synthesize(60, seed=9)
    with pytest.raises(
        InvalidInput, match=r"soft: images: must hold each of the 60 images to train on, got 'all but 60'"
    ):
        labels.attached(others, source="soft")


def test_another_split_and_other_faces_are_refused_with_all_that_differs(faces, labels):
    labels.check_split(faces, SPLIT, source="soft")
    with pytest.raises(InvalidInput) as refused:
        labels.check_split(synthesize(60, seed=9), {**SPLIT, "split_seed": 4}, source="soft")
    assert [line.split(":")[1] for line in refused.value.problems] == [" fingerprint", " split_seed"]
    with pytest.raises(InvalidInput, match="soft: classes: must be"):
        labels.check_split(replace(faces, classes=(*EMOTIONS[:6], "calm")), SPLIT, source="soft")


def test_a_changed_probability_and_rows_that_are_no_shares_are_refused(labels, tmp_path):
    path = tmp_path / "soft.parquet"
    write_soft_labels(labels, path)
    table = pyarrow.parquet.read_table(path)
    write_soft_labels(replace(labels, probabilities=np.roll(labels.probabilities, 1, axis=0)), path)
    other = pyarrow.parquet.read_table(path).replace_schema_metadata(table.schema.metadata)
    pyarrow.parquet.write_table(other, path)
    with pytest.raises(InvalidInput, match="digest: must be"):
        read_soft_labels(path)
    for wrong in (labels.probabilities * 2, np.full_like(labels.probabilities, np.nan), labels.probabilities - 0.5):
        write_soft_labels(replace(labels, probabilities=wrong), path)
        with pytest.raises(InvalidInput, match="probabilities: must be shares that sum to 1"):
            read_soft_labels(path)


def test_other_files_are_refused(faces, file, tmp_path):
    write_parquet(faces, tmp_path / "faces.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "half.parquet").write_bytes(file.read_bytes()[:-400])
    for name in ("faces", "text", "half"):
        with pytest.raises(InvalidInput, match=f"{name}.parquet: file: must be soft labels that"):
            read_soft_labels(tmp_path / f"{name}.parquet")
    with pytest.raises(InvalidInput, match="must exist"):
        read_soft_labels(tmp_path / "nothing.parquet")
