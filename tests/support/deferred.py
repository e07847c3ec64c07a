"""Finish a response that waits, in a test without a server."""

from typing import Any

from dashboard.web.http.responses.deferred import Deferred


def finish(response: Any) -> Any:
    """Return the final response of a view whose work only loads what the response needs."""
    return response.then(None) if isinstance(response, Deferred) else response
