"""Bulk aborts: request them, and what was sent for them."""

from typing import Any
from uuid import UUID, uuid4

from django.contrib.auth.models import User

from dashboard import aborts
from dashboard.models import Run
from tests.support.live import Live


def request_bulk(
    runs: list[Run],
    user: User,
    *,
    reason: str = "Stuck",
    key: UUID | None = None,
    typed_count: str | None = None,
) -> Any:
    """Request a bulk abort; the number of runs is typed correctly unless `typed_count` is given."""
    run_keys = [run.pk for run in runs]
    return aborts.request_bulk_abort(
        run_keys,
        aborts.AbortRequest(user, reason),
        key or uuid4(),
        typed_count=str(len(set(run_keys))) if typed_count is None else typed_count,
    )


def sent_run_ids(live: Live) -> list[str]:
    """The runs whose abort was sent, in order."""
    aborts = [path for method, path in live.sandbox.requests if method == "POST"]
    return [path.split("/")[-2] for path in aborts if path.endswith("/abort")]
