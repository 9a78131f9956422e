"""Where a project keeps what it works on: a file beside the work, whose settings are the command line's defaults.

The file is `fer_search.toml`, or the table `[tool.fer_search]` of `pyproject.toml`, in the nearest directory from the
current one upwards. The command line goes before the environment, and that before the file. A setting that a command
does not take is not its business. Python's own API reads neither.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_search.data.uri import check_no_secret, is_uri
from fer_search.errors import InvalidInput, nearest_name, problem
from fer_search.files import read_toml
from fer_search.tracking_uri import check_uri

FILE = "fer_search.toml"
PYPROJECT = "pyproject.toml"
TABLE = "fer_search"
VARIABLES = {
    "runs": "FER_SEARCH_RUNS",
    "data": "FER_SEARCH_DATA",
    "tracking-uri": "MLFLOW_TRACKING_URI",
    "address": "RAY_ADDRESS",
    "dashboard": "RAY_API_SERVER_ADDRESS",
}
"""The keys of the file, and the variable of the environment that says the same: of MLflow and Ray, their own."""


def read_configuration(directory: Path) -> dict[str, str]:
    """Return the settings of the file that is in force in an absolute `directory`; none where there is no file.

    Relative paths in it are seen from the file, and returned as they are seen from `directory`. Raises InvalidInput
    with all problems of the file.
    """
    for place in (directory, *directory.parents):
        found = _tables(place)
        if len(found) > 1:
            rule = f"must not be there beside {FILE}"
            raise InvalidInput(problem(place / PYPROJECT, f"tool.{TABLE}", rule, "a table"))
        for path, table in found.items():
            return _checked(path, table, directory)
    return {}


def option_defaults(command: Any, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings as click's `default_map` of a command and all below it: of the options with such a variable.

    An option without one, such as the data of `evaluate`, has a default that depends on something else.
    """
    found: dict[str, Any] = {
        parameter.name: settings[key]
        for parameter in command.params
        for key, variable in VARIABLES.items()
        if parameter.envvar == variable and key in settings
    }
    for name, below in getattr(command, "commands", {}).items():
        found[name] = option_defaults(below, settings)
    return found


def _tables(place: Path) -> dict[Path, Any]:
    """Return the tables of settings in a directory, by their files."""
    found = {}
    if (place / FILE).exists():
        found[place / FILE] = read_toml(place / FILE)
    if (place / PYPROJECT).exists():
        tool = read_toml(place / PYPROJECT).get("tool", {})
        if isinstance(tool, Mapping) and TABLE in tool:
            found[place / PYPROJECT] = tool[TABLE]
    return found


def _checked(path: Path, table: Any, directory: Path) -> dict[str, str]:
    if not isinstance(table, Mapping):
        raise InvalidInput(problem(path, f"tool.{TABLE}", "must be a table", table))
    problems = []
    for key, value in table.items():
        if key not in VARIABLES:
            rule = f"must be one of {', '.join(VARIABLES)}{nearest_name(key, VARIABLES)}"
            problems.append(problem(path, key, rule, value))
        elif not isinstance(value, str) or not value:
            problems.append(problem(path, key, "must be a text", value))
        else:
            try:
                _check_address(path, key, value)
            except InvalidInput as error:
                problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return {key: _seen_from(directory, path, key, value) for key, value in table.items()}


def _check_address(path: Path, key: str, value: str) -> None:
    if key == "tracking-uri":
        check_uri(value, source=path)
    elif key == "data" and is_uri(value):
        check_no_secret(value, source=path)


def _seen_from(directory: Path, path: Path, key: str, value: str) -> str:
    """Return a path of the file as a command in `directory` writes it; relative still, for submit to refuse it."""
    is_path = key == "runs" or (key == "data" and value != "synthetic" and not is_uri(value))
    if not is_path:
        return value
    own = Path(value).expanduser()
    return str(own) if own.is_absolute() else os.path.relpath(path.parent / own, directory)
