"""Whether anything listens somewhere: asked before a library is, which would try for minutes."""

import socket

REACH_SECONDS = 5.0


def why_unreachable(host: str, port: int) -> str | None:
    """Return why no connection to `host:port` comes about within REACH_SECONDS, or None if one does."""
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        return str(error)
    return None
