import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # mutations.py


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for the files of all examples of a test, whose names are used again."""
    return tmp_path_factory.mktemp("fuzz")
