"""Aborts: a permanent record of each request to abort a run, with its requester and outcome.

What a run has left running, a job run or a build, is aborted in the same way (`Abort.work`).

An abort changes state only by events (abort_lifecycle.py), which are recorded. The request never
changes, and nothing changes once the abort has settled; triggers enforce both (append_only.py).
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any, ClassVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import BigIntegerField, Exists, OuterRef, Q

from dashboard.db.prepared import (
    Parameter,
    PreparedInsert,
    PreparedUpdate,
    parameters,
)
from dashboard.models.abort_lifecycle import (
    EFFECTS,
    NO_EFFECT_STATES,
    TRANSITIONS,
    AbortState,
    EventType,
    event_of_run,
)
from dashboard.models.bulk_aborts import AuditedRequest, BulkAbort
from dashboard.models.counters import CounterName, increment, observe, store
from dashboard.models.fast_loading import FastLoading
from dashboard.models.runs import Run, mark_changed
from dashboard.models.works import Work


class AbortQuerySet(models.QuerySet["Abort"]):
    def open(self) -> "AbortQuerySet":
        """Aborts that have not settled; at most one per run, and one per job run or build."""
        return self.filter(settled_at=None)

    def with_target(self) -> "AbortQuerySet":
        """Aborts with their run, its stage, pipeline and project, and their job run or build."""
        return self.select_related("run__stage__pipeline__project", "work")

    def unanswered_expired(self, now: datetime, lease: timedelta) -> "AbortQuerySet":
        """Aborts, sent or not, whose process has recorded no response within `lease`."""
        return (
            self.open().filter(state=AbortState.REQUESTED).claimed_outside(now - lease, now + lease)
        )

    def claimed_outside(self, earliest: datetime, latest: datetime) -> "AbortQuerySet":
        """Aborts claimed before `earliest`, or after `latest` because a clock was set back."""
        return self.filter(Q(claimed_at__lt=earliest) | Q(claimed_at__gt=latest))

    def accepted(self) -> "AbortQuerySet":
        """Aborts that Northflank accepted, by its response, an aborting event or the outcome."""
        return self.filter(_was_accepted())

    def accepted_or_aborted(self) -> "AbortQuerySet":
        """Aborts that Northflank accepted, and unconfirmed ones whose run was aborted."""
        unconfirmed = [AbortState.UNKNOWN, AbortState.ABORTED_AGAIN]
        was_aborted = Q(state__in=unconfirmed, run__status="aborted")
        return self.filter(_was_accepted() | was_aborted)

    def not_arrived_or_aborted_again(self) -> "AbortQuerySet":
        """Aborts not arrived, or aborted again, and followed by none that may have had an effect.

        A run that was aborted again is critical, too: only then that is possible.
        """
        later = Abort.objects.filter(run=OuterRef("run"), pk__gt=OuterRef("pk"))
        has_later = Exists(later.exclude(state__in=NO_EFFECT_STATES))
        settled = self.filter(state__in=[AbortState.UNKNOWN, AbortState.ABORTED_AGAIN])
        return settled.exclude(settled_at=None).exclude(has_later)

    def latest_by_run(self, run_pks: Iterable[int]) -> "dict[int, Abort]":
        """Return the latest abort of each of these runs that has one, by the run's key."""
        return {abort.run_id: abort for abort in self.filter(run__in=list(run_pks)).order_by("pk")}

    def settle_for_removed_run(self, run_pk: int, at: datetime) -> None:
        """Settle the open abort of a removed run, unless it is being sent; its outcome is empty."""
        for abort in self.open().filter(run=run_pk).exclude(state=AbortState.REQUESTED):
            abort.apply(EventType.CONCLUDED, at)


# Events by which an abort ends without an effect.
_FAILURES = {EventType.NOT_SENT, EventType.REFUSED, EventType.NOT_ARRIVED}


AbortManager = models.Manager.from_queryset(AbortQuerySet)


class RunAbortManager(AbortManager["Abort"]):
    """The aborts of runs themselves, without those of what runs have left running."""

    def get_queryset(self) -> AbortQuerySet:
        return AbortQuerySet(self.model, using=self._db).filter(work=None)


class Abort(AuditedRequest):
    """One request to abort a run: who, when, why, from where; Northflank's response; the outcome.

    Or to abort what the run has left running. `objects`, also behind `run.aborts`, are the aborts
    of runs themselves; `every` are all.
    """

    # The request: never changes.
    run = models.ForeignKey(Run, models.PROTECT, related_name="aborts")
    # What is aborted, of those that the run has left running; empty: the run itself.
    work = models.ForeignKey(Work, models.PROTECT, null=True, related_name="+", db_index=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="aborts"
    )
    # The abort without effect, after which this one was requested.
    again_of = models.OneToOneField(
        "self", models.PROTECT, null=True, related_name="aborted_again_by"
    )
    bulk_abort = models.ForeignKey(BulkAbort, models.PROTECT, null=True, related_name="aborts")
    # Start of an earlier abort of the run still in progress, if any.
    already_aborting_since = models.DateTimeField(null=True)

    # Its progress: changes until it has settled.
    state = models.CharField(max_length=13, choices=AbortState, default=AbortState.REQUESTED)
    claimed_at = models.DateTimeField()  # When a process last took its lease.
    # Set just before each send; from then on the abort may have arrived.
    sent_at = models.DateTimeField(null=True)
    # Number of sends, equal to its events of type sent.
    send_count = models.PositiveSmallIntegerField(default=0)
    responded_at = models.DateTimeField(null=True)
    response = models.TextField(blank=True)  # Northflank's response, as text.
    response_status = models.PositiveSmallIntegerField(null=True)  # HTTP status of the response.
    error_id = models.TextField(blank=True)  # Northflank's error ID.
    retry_at = models.DateTimeField(null=True)  # When Northflank's rate limit ends.
    outcome = models.TextField(blank=True)  # The target's status when it concluded.
    settled_at = models.DateTimeField(null=True)  # When the abort reached its final state.

    objects = RunAbortManager()
    every = AbortManager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["run"],
                condition=models.Q(settled_at=None, work=None),
                name="abort_one_open_per_run",
            ),
            models.UniqueConstraint(
                fields=["work"],
                condition=models.Q(settled_at=None),
                name="abort_one_open_per_work",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["-requested_at", "-id"], name="abort_requested_at_idx"),
            # Without the many of runs: SQLite would look for these by it, instead of by their run.
            models.Index(
                fields=["work"], name="abort_work_idx", condition=models.Q(work__isnull=False)
            ),
        ]

    @property
    def target(self) -> Run | Work:
        """What is aborted: the run, or what it has left running."""
        return self.work or self.run

    def duration(self, target: Run | Work) -> timedelta | None:
        """Return the time from the request until `target`, what is aborted, ended; None while open.

        Until the abort settled, if it did not settle by that end or its time is not known.
        """
        if self.settled_at is None:
            return None
        is_by_end = self.state == AbortState.CONCLUDED and target.concluded
        ended_at = target.concluded_at if is_by_end and target.status == self.outcome else None
        # The settling only notices the end. By Northflank's clock, that may be before the request.
        if ended_at is None or not self.requested_at <= ended_at <= self.settled_at:
            ended_at = self.settled_at
        return ended_at - self.requested_at

    def apply_run_status(self, status: str, *, concluded: bool, at: datetime) -> None:
        """Apply the new status of its run to the run's latest abort.

        The mirror calls it inside its transaction, which also gives the run its new version.
        """
        if self.settled_at is not None:
            if self.is_affected_by(status):
                self.add_event(EventType.STATUS_CHANGED_AFTER_END, at, detail=status)
        elif event_type := event_of_run(self.state, status=status, in_flight=not concluded):
            self.apply(event_type, at, status if concluded else "", with_run=False)
        elif status == "aborting" and self.state == AbortState.ACCEPTED and self.response != status:
            self.add_event(EventType.ABORTING, at)  # else the acceptance event records it

    def is_affected_by(self, status: str) -> bool:
        """Return whether a settled abort's message changes if its run now has `status`."""
        if self.state == AbortState.UNKNOWN:  # not arrived
            return status in {"aborting", "aborted"}
        if self.state not in {AbortState.CONCLUDED, AbortState.TOO_LATE}:
            return False
        return (
            status != self.outcome
            or self.events.filter(event_type=EventType.STATUS_CHANGED_AFTER_END).exists()
        )

    @property
    def is_awaiting_northflank(self) -> bool:
        """Whether it was sent and is open, so that the next change depends on Northflank."""
        sent_states = {AbortState.ACCEPTED, AbortState.UNKNOWN}
        return self.settled_at is None and self.state in sent_states

    @property
    def is_unconfirmed(self) -> bool:
        """Whether it is open and may not have arrived."""
        return self.settled_at is None and self.state == AbortState.UNKNOWN

    @property
    def is_resend_refused(self) -> bool:
        """Whether it is open, may not have arrived, and is not resent: Northflank refused that."""
        return self.is_unconfirmed and self.response_status is not None

    @property
    def first_sent_at(self) -> datetime:
        """When it was first sent; when it was requested if that is not known."""
        sends = self.events.filter(event_type=EventType.SENT)
        first = sends.aggregate(at=models.Min("occurred_at"))["at"]
        return first or self.sent_at or self.requested_at

    def apply(
        self,
        event_type: EventType,
        at: datetime,
        detail: str = "",
        *,
        of_this_send: bool = False,
        with_run: bool = True,
        **fields: Any,
    ) -> bool:
        """Add an event and change the abort by its effect and `fields`; return False if it can't.

        The first writer wins: an abort stays unchanged if it has settled, or if TRANSITIONS has no
        transition from its state to that of the event. With `of_this_send`, it also stays unchanged
        if it was resent since it was read. The run gets its new version; unless `with_run`, by the
        caller, whose transaction this is.
        """
        with transaction.atomic(savepoint=False):
            if with_run:
                mark_changed([self.run_id])  # first, as it locks the change counter
            effect = EFFECTS[event_type]
            fields = effect.fields(at, detail) | fields
            update = _transition_query(effect.to_state, tuple(fields), of_this_send)
            if not update.execute(abort=self.pk, send_number=self.send_count, **fields):
                return False
            self.add_event(event_type, at, detail=detail)
            self._count(event_type, at)
        for name, value in fields.items():
            setattr(self, name, value)
        return True

    def _count(self, event_type: EventType, at: datetime) -> None:
        if event_type in _FAILURES:
            failed, stage = CounterName.ABORTS_FAILED, self.run.stage_id
            store([increment(failed, self.via, event_type, stage=stage)])
        elif event_type == EventType.CONCLUDED:
            seconds = (at - self.requested_at).total_seconds()
            store(observe(CounterName.ABORT_DURATION, seconds))

    def add_event(self, event_type: EventType, at: datetime, *, detail: str = "") -> None:
        """Add an event to the abort's timeline."""
        event = AbortEvent(abort=self, event_type=event_type, occurred_at=at, detail=detail)
        insert_of_events().execute(event)


class AbortEvent(FastLoading):
    """One entry in an abort's timeline: never changed, never deleted."""

    abort = models.ForeignKey(Abort, models.PROTECT, related_name="events")
    event_type = models.CharField(max_length=14, choices=EventType)
    occurred_at = models.DateTimeField()
    detail = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar = ["pk"]


def _was_accepted() -> Q:
    aborting_events = AbortEvent.objects.filter(abort=OuterRef("pk"), event_type=EventType.ABORTING)
    was_accepted = Q(response_status=200) | Q(outcome="aborted") | Exists(aborting_events)
    states = [AbortState.ACCEPTED, AbortState.CONCLUDED, AbortState.ABORTED_AGAIN]
    return Q(was_accepted, state__in=states)


@cache
def _transition_query(
    to_state: AbortState, fields: tuple[str, ...], of_this_send: bool
) -> PreparedUpdate:
    from_states = [state for state, leads in TRANSITIONS.items() if to_state in leads]
    abort = Parameter("abort", BigIntegerField())
    matching = Abort.every.open().filter(pk=abort, state__in=from_states)
    if of_this_send:
        matching = matching.filter(send_count=Parameter("send_number", BigIntegerField()))
    return PreparedUpdate(matching, **parameters(Abort, fields))


@cache
def insert_of_aborts() -> PreparedInsert[Abort]:
    """Return the insert of new aborts."""
    return PreparedInsert(Abort)


@cache
def insert_of_events() -> PreparedInsert[AbortEvent]:
    """Return the insert of timeline entries."""
    return PreparedInsert(AbortEvent)
