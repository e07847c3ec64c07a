"""The clock is set back after an abort was requested: it is sent no later than otherwise."""

import pytest
import time_machine
from django.contrib.auth.models import User

from dashboard.models import Abort, Run
from dashboard.models.abort_lifecycle import AbortState
from tests.support import factories
from tests.support.abort_answers import FakeNorthflank
from tests.support.world import at


def test_abort_without_a_line_of_its_send_was_first_sent_at_its_last_send_or_request(
    run: Run, manager: User
) -> None:
    abort = factories.abort(run, manager, requested_at=at(1), sent_at=at(2))
    assert abort.first_sent_at == at(2)
    abort.sent_at = None
    assert abort.first_sent_at == at(1)


def reconcile_at(northflank: FakeNorthflank, seconds: float) -> None:
    with time_machine.travel(at(seconds), tick=False):
        northflank.reconcile()


@pytest.mark.parametrize(
    ("seconds", "is_sent"), [(-301, False), (-300, True), (300, True), (301, False)]
)
def test_unsent_abort_is_sent_only_if_it_was_requested_within_five_minutes(
    run: Run, manager: User, seconds: float, is_sent: bool
) -> None:
    unsent = {"requested_at": at(seconds), "claimed_at": at(-20), "sent_at": None}
    factories.abort(run, manager, "requested", **unsent)
    northflank = FakeNorthflank()
    reconcile_at(northflank, 0)
    stored = Abort.objects.get()
    if is_sent:
        assert northflank.methods == ["GET", "POST"]
    else:
        assert northflank.methods == []
        assert (stored.state, stored.response) == (AbortState.NOT_SENT, "Sending timed out.")
