"""Acknowledgements that end by time alone."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from dashboard.models import Acknowledgement, ChangeCounter, Run, Stage
from dashboard.runs import acknowledgements
from dashboard.runs.acknowledgements import MAX_FAILURE_AGE
from dashboard.sync.worker import Periodic
from tests.support import factories
from tests.support.abort_answers import claim_first
from tests.support.world import T0, at

EXPIRY, SINCE = T0 + MAX_FAILURE_AGE, at(60)


@pytest.fixture
def stage(db: None) -> Stage:
    return factories.stage()


def acknowledged_run(stage: Stage, user: User, *, since: datetime = SINCE, **fields: Any) -> Run:
    """A run that failed at T0 and has an acknowledgement."""
    run = factories.run(stage, **{"status": "failure", "concluded_at": T0} | fields)
    Acknowledgement.objects.create(
        run=run, user=user, username=user.username, acknowledged_at=since
    )
    return run


def ends() -> list[datetime | None]:
    return list(Acknowledgement.objects.values_list("ended_at", flat=True))


def test_expired_acknowledgement_ends_with_its_expiry_and_a_new_version(
    stage: Stage, viewer: User
) -> None:
    run = acknowledged_run(stage, viewer)
    acknowledgements.end_expired(EXPIRY + timedelta(hours=1))
    assert ends() == [EXPIRY]
    assert Run.objects.get().version == run.version + 1


def test_expired_acknowledgement_ends_once(stage: Stage, viewer: User) -> None:
    acknowledged_run(stage, viewer)
    acknowledgements.end_expired(EXPIRY)
    version = ChangeCounter.latest()
    acknowledgements.end_expired(EXPIRY + timedelta(hours=1))
    assert (ends(), ChangeCounter.latest()) == ([EXPIRY], version)


def test_acknowledgement_never_ends_before_it_began(stage: Stage, viewer: User) -> None:
    since = EXPIRY + timedelta(hours=1)  # by another clock
    acknowledged_run(stage, viewer, since=since)
    acknowledgements.end_expired(since)
    assert ends() == [since]


@pytest.mark.parametrize(
    ("fields", "now"),
    [({}, EXPIRY - timedelta(seconds=1)), ({"status": "running"}, EXPIRY)],
    ids=["before its expiry", "of a run in flight"],
)
def test_acknowledgement_that_has_not_expired_is_kept(
    fields: dict[str, Any], now: datetime, stage: Stage, viewer: User
) -> None:
    acknowledged_run(stage, viewer, **fields)
    version = ChangeCounter.latest()
    acknowledgements.end_expired(now)
    assert (ends(), ChangeCounter.latest()) == ([None], version)


def test_acknowledgement_handed_back_meanwhile_keeps_its_end(stage: Stage, viewer: User) -> None:
    run = acknowledged_run(stage, viewer)
    handed_back_at = EXPIRY + timedelta(seconds=1)

    def hand_back() -> None:
        Acknowledgement.objects.update(ended_at=handed_back_at)

    with connection.execute_wrapper(claim_first(hand_back)):
        acknowledgements.end_expired(EXPIRY + timedelta(seconds=2))
    assert ends() == [handed_back_at]
    assert Run.objects.get().version == run.version  # as set here, without one


def test_many_expired_acknowledgements_end_in_several_rounds(stage: Stage, viewer: User) -> None:
    for _run in range(acknowledgements.MAX_PER_ROUND + 1):
        acknowledged_run(stage, viewer)
    still_open = []
    for _round in range(2):
        acknowledgements.end_expired(EXPIRY)
        still_open.append(ends().count(None))
    assert still_open == [1, 0]


@pytest.mark.django_db(transaction=True)
def test_chore_ends_expired_acknowledgements(viewer: User) -> None:
    two_days_ago = timezone.now() - timedelta(days=2)
    acknowledged_run(factories.stage(), viewer, since=two_days_ago, concluded_at=two_days_ago)
    chore = Periodic(acknowledgements.end_expired, interval=60)
    for _ in range(2):
        asyncio.run(chore(None))
    assert ends() == [two_days_ago + MAX_FAILURE_AGE]
