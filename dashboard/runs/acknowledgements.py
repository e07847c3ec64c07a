"""Looking at a run that needs somebody: several people may, and everybody sees who does.

It is said by a press and ends by one, by somebody who takes over, or with the run. One that failed
still has to be looked at: there it ends by itself, a day after the failure.
"""

from collections.abc import Collection
from datetime import datetime

import structlog
from django.contrib.auth.models import User
from django.db import transaction

from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.models import ChangeCounter, Looking, Run
from dashboard.models.runs import touch
from dashboard.runs import alerts

log = structlog.get_logger(__name__)


class NotAllowed(Exception):
    """The person may not say so; the message says why."""


class NothingToLookAt(Exception):
    """The run needs nobody, or no more."""


def begin(run: Run, user: User, *, instead_of: Collection[int] = ()) -> None:
    """Note that `user` looks at `run`, and that those whose keys are given need not any more.

    Whoever looks already goes on. Raises NotAllowed and NothingToLookAt.
    """
    _check(run, user)
    now = db_threads.now()
    name = user.get_username()
    with transaction.atomic():
        ChangeCounter.reserve(0)  # writers take turns: what is read from here on is so
        shown = Run.objects.without_detail().get(pk=run.pk)
        lookers = now_at([shown], now).get(shown.pk, [])
        if not lookers and not alerts.is_wanted(shown, now):
            raise NothingToLookAt
        others = [one for one in lookers if one.pk in instead_of and one.user_id != user.pk]
        looks_already = any(one.user_id == user.pk for one in lookers)
        if looks_already and not others:
            return
        touch([run.pk])
        before = Looking.objects.filter(pk__in=[one.pk for one in others])
        before.update(until=now, taken_over_by=name)
        if not looks_already:
            Looking.objects.create(run=run, user=user, username=name, since=now)
    log.info("looking.began", run=run.run_id, by=name, instead_of=[one.username for one in others])


def stop(run: Run, user: User) -> None:
    """Note that `user` does not look at `run` any more; raises NotAllowed."""
    _check(run, user)
    with transaction.atomic():
        ChangeCounter.reserve(0)
        if not run.lookings.open().filter(user=user).update(until=db_threads.now()):
            return
        touch([run.pk])
    log.info("looking.ended", run=run.run_id, by=user.get_username())


def now_at(runs: Collection[Run], now: datetime) -> dict[int, list[Looking]]:
    """Return who looks at those of these runs that somebody looks at, by the run's key."""
    going_on = [run.pk for run in runs if alerts.goes_on(run, now)]
    found: dict[int, list[Looking]] = {}
    for one in Looking.objects.open().filter(run__in=going_on) if going_on else ():
        found.setdefault(one.run_id, []).append(one)
    return found


def in_stages(stages: Collection[int], now: datetime) -> dict[int, list[Looking]]:
    """Return who looks at runs of these stages, each person once, by the stage's key."""
    of = Looking.objects.open().filter(run__stage__in=stages).select_related("run")
    found: dict[int, dict[str, Looking]] = {}
    for one in of.defer("run__steps", "run__raw", "run__description"):
        if alerts.goes_on(one.run, now):
            found.setdefault(one.run.stage_id, {}).setdefault(one.username, one)
    return {stage: list(lookings.values()) for stage, lookings in found.items()}


def of_run(run: Run, now: datetime) -> list[Looking]:
    """Return all who look, or have looked, at a run, in the order in which they began.

    One that went on when it ended by itself has that as its end.
    """
    lookings = list(run.lookings.all())
    if not alerts.goes_on(run, now):
        faded = min(alerts.ended_at(run) + alerts.LATELY, now)
        for one in lookings:
            one.until = one.until or max(one.since, faded)
    return lookings


def _check(run: Run, user: User) -> None:
    verdict = permissions.rights(user).may_look(run.stage)
    if not verdict.allowed:
        log.warning("looking.not_allowed", run=run.run_id, by=user.get_username())
        raise NotAllowed(verdict.why_not)
