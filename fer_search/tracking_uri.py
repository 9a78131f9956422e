"""The address of an MLflow store, as people write it. Loads nothing of MLflow."""

from pathlib import Path
from urllib.parse import urlsplit

from fer_search.errors import InvalidInput, problem

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


def local_store(directory: Path) -> str:
    """Return the URI of the embedded SQLite store in `directory`."""
    return f"sqlite:///{(directory / 'mlflow.db').resolve()}"


def check_uri(uri: str, *, source: object = "command line") -> None:
    """Raise InvalidInput for an address that MLflow cannot track to; a server that is merely away is no mistake."""
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in SCHEMES:
        rule = f"must begin with one of {', '.join(f'{known}:' for known in SCHEMES)}"
        raise InvalidInput(problem(source, "tracking-uri", rule, uri))
    try:
        password = urlsplit(uri).password
    except ValueError as error:
        raise InvalidInput(problem(source, "tracking-uri", "must be a URI", uri)) from error
    if password:
        rule = "must hold no password, since it is put on record (it belongs in the environment: {})"
        variable = "MLFLOW_TRACKING_PASSWORD" if scheme.startswith("http") else "PGPASSWORD and the like"
        raise InvalidInput(problem(source, "tracking-uri", rule.format(variable), f"{scheme}://..."))
