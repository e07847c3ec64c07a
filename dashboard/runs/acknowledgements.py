"""Acknowledge runs: users show each other who is looking at a run.

A run can be acknowledged by several users, while it is overdue or waits for an approval, and for a
day after a failure, thus longer than that needs attention (attention.FAILURE_WINDOW). An
acknowledgement ends when its user hands it back, when another user takes it over, when the run ends
without a failure, or one day after the failure.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache

import structlog
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import BigIntegerField

from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.db.prepared import Keys, Parameter, PreparedModels
from dashboard.models import Acknowledgement, ChangeCounter, Run
from dashboard.models.runs import mark_changed

log = structlog.get_logger(__name__)

# How long a failed run may be acknowledged at all.
MAX_FAILURE_AGE = timedelta(days=1)
INTERVAL = 60.0  # seconds between two looks for expired acknowledgements
MAX_PER_ROUND = 200  # that are ended at once: all other writers wait for it


def can_be_acknowledged(run: Run, now: datetime) -> bool:
    """Return whether a run is overdue or waits for approval, or failed within MAX_FAILURE_AGE."""
    if run.in_flight:
        return bool(run.overdue_severity or run.abort_severity or run.approval_since)
    return _failed_recently(run, now)


def is_open(run: Run, now: datetime) -> bool:
    """Return whether a run is in flight, or failed within MAX_FAILURE_AGE."""
    return run.in_flight or _failed_recently(run, now)


def expires_at(run: Run) -> datetime | None:
    """Return when a failed run's acknowledgements end by time alone; None for other runs."""
    return run.ended_at + MAX_FAILURE_AGE if run.has_failed else None


def is_resolved(run: Run) -> bool:
    """Return whether a run has ended, and not in failure."""
    return not run.in_flight and run.status != "failure"


def _failed_recently(run: Run, now: datetime) -> bool:
    expiry = expires_at(run)
    return expiry is not None and now < expiry


class NothingToAcknowledge(Exception):
    """The run is not overdue, does not wait for an approval, and has not failed within a day."""


def acknowledge(run: Run, user: User, *, take_over_from: Collection[int] = ()) -> None:
    """Acknowledge `run` for `user`, taking over the acknowledgements with keys `take_over_from`.

    An open acknowledgement of the same user is kept. Raise PermissionDenied, or
    NothingToAcknowledge.
    """
    _check_permission(run, user)
    now = db_threads.now()
    username = user.get_username()
    with transaction.atomic():
        ChangeCounter.lock()
        current = Run.objects.without_detail().get(pk=run.pk)
        active = active_by_run([current], now).get(current.pk, [])
        if not active and not can_be_acknowledged(current, now):
            raise NothingToAcknowledge
        taken_over = [
            acknowledgement
            for acknowledgement in active
            if acknowledgement.pk in take_over_from and acknowledgement.user_id != user.pk
        ]
        is_acknowledged = any(acknowledgement.user_id == user.pk for acknowledgement in active)
        if is_acknowledged and not taken_over:
            return
        mark_changed([run.pk])
        previous = Acknowledgement.objects.filter(
            pk__in=[acknowledgement.pk for acknowledgement in taken_over]
        )
        previous.update(ended_at=now, taken_over_by=username)
        if not is_acknowledged:
            Acknowledgement.objects.create(
                run=run, user=user, username=username, acknowledged_at=now
            )
    log.info(
        "acknowledgement.created",
        run=run.run_id,
        by=username,
        instead_of=[acknowledgement.username for acknowledgement in taken_over],
    )


def hand_back(run: Run, user: User) -> None:
    """End the acknowledgement of `run` by `user`, if there is one; raise PermissionDenied."""
    _check_permission(run, user)
    with transaction.atomic():
        ChangeCounter.lock()
        if not run.acknowledgements.open().filter(user=user).update(ended_at=db_threads.now()):
            return
        mark_changed([run.pk])
    log.info("acknowledgement.handed_back", run=run.run_id, by=user.get_username())


def active_by_run(runs: Collection[Run], now: datetime) -> dict[int, list[Acknowledgement]]:
    """Return the active acknowledgements by run key; runs without any are left out."""
    open_run_pks = [run.pk for run in runs if is_open(run, now)]
    by_run: dict[int, list[Acknowledgement]] = {}
    for acknowledgement in _open_query().fetch(runs=open_run_pks) if open_run_pks else ():
        by_run.setdefault(acknowledgement.run_id, []).append(acknowledgement)
    return by_run


@cache
def _open_query() -> PreparedModels[Acknowledgement]:
    return PreparedModels(Acknowledgement.objects.open().filter(run__in=Keys("runs")))


def active_by_stage(stages: Collection[int], now: datetime) -> dict[int, list[Acknowledgement]]:
    """Return the active acknowledgements by stage key, one for each user and stage."""
    by_stage: dict[int, dict[str, Acknowledgement]] = {}
    for acknowledgement in _open_with_run_query().fetch():
        if acknowledgement.run.stage_id in stages and is_open(acknowledgement.run, now):
            by_stage.setdefault(acknowledgement.run.stage_id, {}).setdefault(
                acknowledgement.username, acknowledgement
            )
    return {stage: list(by_username.values()) for stage, by_username in by_stage.items()}


@cache
def _open_with_run_query() -> PreparedModels[Acknowledgement]:
    # All that are open: filtered by stage, SQLite would read all runs of these stages.
    acknowledgements = Acknowledgement.objects.open().select_related("run")
    return PreparedModels(acknowledgements.defer("run__steps", "run__description"))


def history(run: Run) -> list[Acknowledgement]:
    """Return all acknowledgements of a run, oldest first."""
    return _history_query().fetch(run=run.pk)


@cache
def _history_query() -> PreparedModels[Acknowledgement]:
    return PreparedModels(Acknowledgement.objects.filter(run=Parameter("run", BigIntegerField())))


def end_expired(now: datetime) -> None:
    """End up to MAX_PER_ROUND acknowledgements that have expired; their runs get a new version.

    They expire by time alone, so only this updates open pages.
    """
    still_open = _open_with_run_query().fetch()
    expired = [item for item in still_open if not is_open(item.run, now)][:MAX_PER_ROUND]
    if not expired:
        return
    with transaction.atomic():
        ChangeCounter.lock()
        mark_changed(
            acknowledgement.run_id
            for acknowledgement in expired
            # Unless it was handed back, or ended by another worker, since it was read.
            if Acknowledgement.objects.open()
            .filter(pk=acknowledgement.pk)
            .update(ended_at=_expiry(acknowledgement, acknowledgement.run, now))
        )


def _expiry(acknowledgement: Acknowledgement, run: Run, now: datetime) -> datetime:
    expired_at: datetime = min(run.ended_at + MAX_FAILURE_AGE, now)
    return max(acknowledgement.acknowledged_at, expired_at)


def _check_permission(run: Run, user: User) -> None:
    permission = permissions.for_user(user).acknowledge_permission(run.stage)
    if not permission.allowed:
        log.warning("acknowledgement.denied", run=run.run_id, by=user.get_username())
        raise PermissionDenied(permission.denied_reason)
