"""Faces and recipes small enough for a test, and no random state left behind."""

import os

# Before torch is loaded: two threads on a busy machine otherwise wait for each other in a spin loop.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import pytest

from fer_search.data.faces import Faces
from fer_search.data.synthetic import synthesize
from fer_search.recipe import Recipe


@pytest.fixture(scope="session")
def faces() -> Faces:
    return synthesize(400, seed=3)


@pytest.fixture(scope="session")
def fit(faces: Faces) -> Faces:
    return faces.take(np.arange(0, 100))


@pytest.fixture(scope="session")
def validation(faces: Faces) -> Faces:
    return faces.take(np.arange(100, 160))


@pytest.fixture(scope="session")
def small() -> Recipe:
    """A recipe with every technique on that a CPU trains in a second."""
    return Recipe().replace({"backbone": "test_efficientnet", "stem_stride": 2, "epochs": 2, "batch_size": 16})
