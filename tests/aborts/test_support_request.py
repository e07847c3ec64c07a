"""The support request about an abort that does not end: what it has, and what it leaves out."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from dashboard.aborts import support_request
from dashboard.models import Abort, Pipeline, Project, Run, Stage

AT = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
PLACE = """A release flow run has not ended after an abort.

Team: acme
Project: shop
Pipeline: checkout
Stage: Production
Run: r-1
"""


def run(**fields: Any) -> Run:
    pipeline = Pipeline(slug="checkout", name="Checkout", project=Project(slug="shop"))
    defaults = {
        "run_id": "r-1",
        "stage": Stage(name="Production", pipeline=pipeline),
        "status": "aborting",
        "status_since": AT,
        "synced_at": AT + timedelta(minutes=9),
    }
    return Run(**defaults | fields)


def abort(**fields: Any) -> Abort:
    defaults = {
        "requested_at": AT,
        "sent_at": AT + timedelta(seconds=1),
        "responded_at": AT + timedelta(seconds=2),
        "response_status": 200,
        "response": "aborting",
        "username": "ana",
        "reason": "secret plan",
    }
    return Abort(**defaults | fields)


def build(subject: Run, row: Abort | None, team: str = "acme") -> str:
    # In another zone than UTC, which the text is in.
    now = (AT + timedelta(minutes=10)).astimezone(timezone(timedelta(hours=5)))
    return support_request.build(subject, row, team=team, now=now)


def test_support_request_has_ids_times_and_answer() -> None:
    assert (
        build(run(step="db: migrate"), abort(error_id="err-42"))
        == f"""{PLACE}
Abort requested: 2026-03-02 08:00:00 UTC
Abort sent: 2026-03-02 08:00:01 UTC
Response: 200 aborting at 2026-03-02 08:00:02 UTC
Error ID: err-42
Status: aborting, not concluded, as of 2026-03-02 08:09:00 UTC
Step: db: migrate
Report created: 2026-03-02 08:10:00 UTC"""
    )


@pytest.mark.parametrize(
    ("fields", "answer"),
    [({"response": ""}, "none"), ({"response": "No answer."}, "none (No answer.)")],
)
def test_support_request_about_an_abort_without_answer(fields: dict[str, Any], answer: str) -> None:
    row = abort(sent_at=None, responded_at=None, response_status=None, **fields)
    assert (
        build(run(status="failure", concluded=True), row, team="")
        == f"""{PLACE.replace("acme", "(unknown)")}
Abort requested: 2026-03-02 08:00:00 UTC
Abort sent: –
Response: {answer}
Status: failure, concluded, as of 2026-03-02 08:09:00 UTC
Report created: 2026-03-02 08:10:00 UTC"""
    )


@pytest.mark.parametrize(
    ("since", "line"),
    [
        (None, "First seen aborting: 2026-03-02 08:00:00 UTC"),
        (AT - timedelta(minutes=1), "Aborting since: 2026-03-02 07:59:00 UTC"),
    ],
)
def test_support_request_about_an_abort_from_outside(since: datetime | None, line: str) -> None:
    assert (
        build(run(aborting_since=since), None)
        == f"""{PLACE}
{line}
Status: aborting, not concluded, as of 2026-03-02 08:09:00 UTC
Report created: 2026-03-02 08:10:00 UTC"""
    )
