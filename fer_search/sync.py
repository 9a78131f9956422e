"""What MLflow lacks of what is on disk, sent to it afterwards."""

from pathlib import Path

from fer_search.errors import InvalidInput, problem
from fer_search.long_trainings import training_to_export
from fer_search.presentation import present, present_training
from fer_search.registry import FOLDERS, register_run
from fer_search.runs import RESULT, RUNS, existing_run
from fer_search.search_result import read_search
from fer_search.tracking_state import DESCRIPTION, read_description
from fer_search.tracking_uri import check_uri
from fer_search.tracking_writer import send_all


def sync(name: str, *, tracking_uri: str | None = None, runs: Path = RUNS) -> dict[Path, int]:
    """Send to MLflow whatever it lacks of a search or a training and of all that is below it, such as a race.

    With `tracking_uri` to another store than theirs, as where that one never came to be. Returns the number of events
    of each run's directory. Raises InvalidInput where a run is being sent already, and where the store does not answer.
    """
    directory = existing_run(runs, name)
    if tracking_uri is not None:
        check_uri(tracking_uri)
    found = sorted(path.parent for path in directory.rglob(DESCRIPTION))
    if not found:
        raise InvalidInput(problem(directory, "run", "must be a search or a training", "nothing tracked"))
    sent = {each: send_all(each, tracking_uri) for each in found}
    if directory not in found:  # label-noise, whose folds are trainings
        for each in found:
            if (each / RESULT).exists():
                present_training(each, uri=tracking_uri)
        return sent
    described = read_description(directory)
    uri = tracking_uri or described.uri
    if described.kind == "search":
        present(read_search(name, runs=runs), uri=uri)
    elif (directory / RESULT).exists():
        present_training(directory, uri=uri)
    if (directory / FOLDERS["training"]).exists():
        training, _ = training_to_export(directory, None)
        register_run(directory / FOLDERS["training"], training, is_winner=training != directory, uri=uri)
    for combination in (directory / FOLDERS["soup"], directory / FOLDERS["ensemble"]):
        if combination.exists():
            register_run(combination, directory, is_winner=False, uri=uri)
    return sent
