"""The shipped files of Ray's cluster launcher, as `ray up` reads them."""

import copy
from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "cluster" / "launcher"
FILES = sorted(LAUNCHER.glob("*.yaml"))
CLOUDS = [path for path in FILES if path.stem != "onprem"]
EDIT = "EDIT"


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def prepared(path: Path) -> dict:
    """Return the file with what Ray adds to it before it is checked and the cloud is asked."""
    return prepare_config(copy.deepcopy(read(path)))


def commands(config: dict) -> dict[str, list[str]]:
    """Return every list of commands, by its key."""
    return {key: value for key, value in config.items() if key.endswith("_commands")}
