"""The address of data, as people write it. Loads nothing that could read it."""

from urllib.parse import parse_qs, urlsplit

from fer_search.errors import InvalidInput, problem

SECRETS = ("access_key", "secret_key", "session_token", "token", "password")


def is_uri(source: str) -> bool:
    """Return whether a source is a URI and not a path."""
    return "://" in source


def check_no_secret(uri: str, *, source: object = "command line") -> None:
    """Raise InvalidInput for a URI with credentials in it: it is put on record, and on command lines."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidInput(problem(source, "data", "must be a URI", uri)) from error
    if parts.username or parts.password or set(SECRETS) & parse_qs(parts.query).keys():
        rule = "must hold no credentials: they come from the environment, a profile or the machine's role"
        raise InvalidInput(problem(source, "data", rule, f"{parts.scheme}://..."))
