"""A command line of ours as it is to run on a cluster: checked here by its own parser, its files brought along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_search.data.uri import check_no_secret, is_uri
from fer_search.errors import InvalidInput, problem
from fer_search.tracking_uri import check_uri

COMMANDS = (
    "search", "resume", "race", "retrain", "calibrate", "train", "label-noise", "export", "evaluate", "compare",
    "status", "sync",
)  # fmt: skip
FILES = {"space", "recipe_file"}
"""Parameters that name a file of this machine; it travels along."""
HERE_ONLY = {"address": "a job runs on the cluster that it is submitted to", "dry_run": "look at it here"}


@dataclass(frozen=True)
class Command:
    """A command with its parsed parameters, its command line on the cluster and the files that this refers to."""

    name: str
    parameters: Mapping[str, Any]
    arguments: list[str]
    files: dict[str, Path]

    @property
    def run(self) -> str:
        """The name of the search or training that the command is about; empty where it is about none."""
        return str(self.parameters.get("name") or "")


def read_command(app: Any, words: Sequence[str], *, parent: Any = None) -> Command:
    """Parse `words` with the command line's own parser, `app`; `parent` is the context that its messages name.

    Raises InvalidInput for what makes no sense on another machine, and click's own errors for the rest.
    """
    name = words[0] if words else ""
    if name not in COMMANDS:
        raise InvalidInput(problem("command line", "command", f"must be one of {', '.join(COMMANDS)}", name))
    parser = app.commands[name]
    defaults = (parent.find_root().default_map or {}).get(name) if parent else None
    context = parser.make_context(name, list(words[1:]), parent=parent, default_map=defaults)
    sources = {parameter.name: context.get_parameter_source(parameter.name).name for parameter in parser.params}
    given = {
        parameter: context.params[parameter.name]
        for parameter in parser.params
        if parameter.name in context.params
        and sources[parameter.name] != "DEFAULT"
        and not (parameter.name in HERE_ONLY and sources[parameter.name] in ("ENVIRONMENT", "DEFAULT_MAP"))
    }
    parameters = {parameter.name: value for parameter, value in given.items()}
    _check_places(parameters)
    files = {key: f"files/{path.name}" for key, path in parameters.items() if key in FILES}
    arguments = [name]
    for parameter, value in given.items():
        arguments += _words(parameter, files.get(parameter.name, value))
    brought = {there: parameters[key] for key, there in files.items()}
    return Command(name, context.params, arguments, brought)


def _check_places(parameters: Mapping[str, Any]) -> None:
    """Raise InvalidInput for places that this machine may know and the cluster cannot."""
    problems = [
        problem("command line", key.replace("_", "-"), f"must not be given to submit: {why}", parameters[key])
        for key, why in HERE_ONLY.items()
        if parameters.get(key)
    ]
    runs = parameters.get("runs")
    if runs is None or not runs.is_absolute():
        rule = "must be the absolute path of a directory that every node of the cluster shares"
        problems.append(problem("command line", "runs", rule, None if runs is None else str(runs)))
    data = parameters.get("data", "synthetic")
    if data is not None and data != "synthetic" and not is_uri(data) and not Path(data).is_absolute():
        rule = "must be 'synthetic', an absolute path that every node of the cluster has, or a URI"
        problems.append(problem("command line", "data", rule, data))
    soft_labels = parameters.get("soft_labels")
    if soft_labels is not None and not soft_labels.is_absolute():
        rule = "must be an absolute path that every node of the cluster has"
        problems.append(problem("command line", "soft-labels", rule, str(soft_labels)))
    if problems:
        raise InvalidInput(problems)
    if data is not None and is_uri(data):
        check_no_secret(data)
    if uri := parameters.get("tracking_uri"):
        check_uri(uri)


def _words(parameter: Any, value: Any) -> list[str]:
    """Return a parameter as it is written on a command line."""
    if parameter.param_type_name == "argument":
        return [str(each) for each in value] if parameter.nargs != 1 else [str(value)]
    option = max(parameter.opts, key=len)
    if parameter.is_flag:
        return [option] if value else []
    return [option, str(value)]
