"""The published counts of FER2013, on the real images where they lie beside the repository."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fer_search.data.audit import audit
from fer_search.data.faces import Faces
from fer_search.data.splits import split_faces

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "fer2013"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs FER2013 in {DATA}")


@pytest.fixture(scope="module")
def faces() -> Faces:
    tables = [pq.read_table(DATA / name) for name in ("training.parquet", "public.parquet")]
    columns = {
        name: [value for table in tables for value in table[name].to_pylist()] for name in tables[0].column_names
    }
    images = [np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")) for jpeg in columns["jpeg"]]
    return Faces(np.array(images), np.array(columns["emotion"]), np.array(columns["Usage"]), np.array(columns["name"]))


def test_the_counts_are_the_published_ones(faces):
    found = audit(faces)
    assert list(found.counts["Training"].values()) == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert list(found.counts["PublicTest"].values()) == [467, 56, 496, 895, 653, 415, 607]
    assert found.constant_images == 12
    assert found.test_images_in_training == {"PublicTest": 280}


def test_the_honest_protocol_leaves_no_public_image_in_the_fit(faces):
    parts = split_faces(faces, seed=0, validation_fraction=0.1)
    assert parts.label == "PublicTest"
    assert len(parts.public) == 3589
    assert len(parts.fit) + len(parts.validation) + parts.dropped_test_duplicates == 28709
    public = {image.tobytes() for image in parts.public.pixels}
    assert not any(image.tobytes() in public for image in parts.fit.pixels)
    assert not any(image.tobytes() in public for image in parts.validation.pixels)
    training = {image.tobytes() for image in faces.where("Training").pixels}
    assert int(parts.public_unique.sum()) == len(public - training) == 3293
