"""Aborts: each press is an act with an author, a reason and an end, and is kept for good.

An act moves forward only, and each step is written down beside it. What was asked for never
changes, and nothing changes once it has settled; the database holds both (append_only.py).
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import Exists, OuterRef, Q

from dashboard.models.bulk_aborts import AuditedRequest, BulkAbort
from dashboard.models.runs import Run, mark_changed


class AbortState(models.TextChoices):
    REQUESTED = "requested"  # written down, and perhaps sent; not answered yet
    ACCEPTED = "accepted"  # Northflank answered 2xx; the run has not concluded yet
    CONCLUDED = "concluded"  # the run has concluded after Northflank accepted
    NOT_SENT = "not_sent"  # it certainly did not reach Northflank
    REFUSED = "refused"  # Northflank answered no
    UNKNOWN = "unknown"  # it may not have arrived: to be sent again, or sent in vain
    TOO_LATE = "too_late"  # the run had concluded before the abort arrived
    TRIED_AGAIN = "tried_again"  # nothing came of it, and somebody pressed again


_S = AbortState
TRANSITIONS: dict[AbortState, frozenset[AbortState]] = {
    _S.REQUESTED: frozenset(
        {_S.ACCEPTED, _S.CONCLUDED, _S.NOT_SENT, _S.REFUSED, _S.TOO_LATE, _S.UNKNOWN}
    ),
    _S.ACCEPTED: frozenset({_S.CONCLUDED, _S.TRIED_AGAIN}),
    # It may not have arrived: then it is sent again, which leads back to the begin.
    _S.UNKNOWN: frozenset(_S),
}


class EventType(models.TextChoices):
    """What happened to an act: a word for each line of its trail."""

    REQUESTED = "requested"  # detail: what else is known of where it came from
    JOINED = "joined"  # somebody else pressed meanwhile; detail: who, from where, why
    ADOPTED = "adopted"  # its process had died; another went on with it
    SENT = "sent"  # on its way from here on; detail: from the second time on, which it is
    ACCEPTED = "accepted"  # detail: the run's status in the answer
    ABORTING = "aborting"  # Northflank says of the run that it is aborting
    REFUSED = "refused"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"  # it may have arrived, or not; detail: what went wrong
    NOT_ARRIVED = "not_arrived"  # the run went on; detail: why it is not sent again
    TOO_LATE = "too_late"  # detail: the run's status
    CONCLUDED = "concluded"  # detail: the run's status
    TRIED_AGAIN = "tried_again"  # detail: by whom
    ANSWERED_LATE = "answered_late"  # after the act had settled; changes nothing about it
    STATUS_CHANGED_AFTER_END = (
        "status_changed"  # after its end the run became something else; detail: its status
    )


class AbortQuerySet(models.QuerySet["Abort"]):
    def open(self) -> "AbortQuerySet":
        """Aborts of which more is to come; at most one a run."""
        return self.filter(settled_at=None)

    def unsent_expired(self, now: datetime, lease: timedelta) -> "AbortQuerySet":
        """Requested aborts whose process has not finished sending within its lease."""
        return (
            self.open().filter(state=AbortState.REQUESTED).claimed_outside(now - lease, now + lease)
        )

    def claimed_outside(self, earliest: datetime, latest: datetime) -> "AbortQuerySet":
        """Aborts that were claimed before a moment; or after another: the clock was set back."""
        return self.filter(Q(claimed_at__lt=earliest) | Q(claimed_at__gt=latest))

    def accepted(self) -> "AbortQuerySet":
        """Aborts of which Northflank has said in some way that it took them on."""
        aborting_events = AbortEvent.objects.filter(
            abort=OuterRef("pk"), event_type=EventType.ABORTING
        )
        was_accepted = Q(answer_status=200) | Q(outcome="aborted") | Exists(aborting_events)
        states = [_S.ACCEPTED, _S.CONCLUDED, _S.TRIED_AGAIN]
        return self.filter(was_accepted, state__in=states)

    def apply_run_status(self, run_pk: int, status: str, *, concluded: bool, at: datetime) -> None:
        """Have the aborts of a run whose status has changed hear of it.

        Called by the mirror inside its transaction, which gives the run its new version.
        """
        latest = self.filter(run=run_pk).order_by("-pk").first()
        if latest is None:
            return
        if latest.settled_at is not None:
            if latest.is_affected_by(status):
                latest.add_event(EventType.STATUS_CHANGED_AFTER_END, at, detail=status)
        # One that is still being sent settles itself when it knows what Northflank answered.
        elif latest.state == AbortState.REQUESTED:
            return
        elif concluded:
            latest.transition(
                _S.CONCLUDED, EventType.CONCLUDED, at, detail=status, outcome=status, settled_at=at
            )
        elif status == "aborting":
            if latest.state == AbortState.UNKNOWN:
                latest.transition(_S.ACCEPTED, EventType.ABORTING, at)
            elif latest.answer != status:  # else it stands in the line of its acceptance
                latest.add_event(EventType.ABORTING, at)

    def settle_for_removed_run(self, run_pk: int, at: datetime) -> None:
        """Settle the open abort of a run that Northflank knows no more; how it ended is unknown."""
        for abort in self.open().filter(run=run_pk).exclude(state=AbortState.REQUESTED):
            abort.transition(_S.CONCLUDED, EventType.CONCLUDED, at, outcome="", settled_at=at)


class Abort(AuditedRequest):
    """One press of Abort: who, when, why, from where, what Northflank answered, how it ended."""

    # What was asked for: never changes.
    run = models.ForeignKey(Run, models.PROTECT, related_name="aborts")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="aborts"
    )
    retry_of = models.OneToOneField(
        "self", models.PROTECT, null=True, related_name="retried_by", help_text="Tried again here."
    )
    bulk_abort = models.ForeignKey(BulkAbort, models.PROTECT, null=True, related_name="aborts")
    already_aborting_since = models.DateTimeField(
        null=True, help_text="Since when it was under way, if longer than since the press."
    )

    # How it stands: changes until it has settled.
    state = models.CharField(max_length=12, choices=AbortState, default=AbortState.REQUESTED)
    claimed_at = models.DateTimeField(help_text="When a process last took it on: its lease.")
    sent_at = models.DateTimeField(
        null=True, help_text="Written just before each sending: from then on it may have arrived."
    )
    sendings = models.PositiveSmallIntegerField(
        default=0, help_text="How often it was sent: as many lines of its trail say so."
    )
    answered_at = models.DateTimeField(null=True)
    answer = models.TextField(blank=True, help_text="Northflank's answer, in a sentence.")
    answer_status = models.PositiveSmallIntegerField(null=True, help_text="Its HTTP status.")
    error_id = models.TextField(blank=True, help_text="Northflank's own id of its error.")
    retry_at = models.DateTimeField(null=True, help_text="When Northflank takes requests again.")
    outcome = models.TextField(blank=True, help_text="The run's status when it concluded.")
    settled_at = models.DateTimeField(null=True, help_text="When nothing more was to come.")

    objects = AbortQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["run"], condition=models.Q(settled_at=None), name="abort_one_open_per_run"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["-requested_at", "-id"], name="abort_requested_at_idx")
        ]

    def __str__(self) -> str:
        return f"{self.username} aborted {self.run_id} at {self.requested_at:%Y-%m-%d %H:%M:%S}"

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from the press until nothing more was to come; None while more is."""
        if self.settled_at is None:
            return None
        return (self.settled_at - self.requested_at).total_seconds()

    def is_affected_by(self, status: str) -> bool:
        """Say whether an act that has settled reads otherwise once its run says `status`."""
        if self.state == AbortState.UNKNOWN:  # taken for not arrived
            return status in {"aborting", "aborted"}
        if self.state not in {AbortState.CONCLUDED, AbortState.TOO_LATE}:
            return False
        return (
            status != self.outcome
            or self.events.filter(event_type=EventType.STATUS_CHANGED_AFTER_END).exists()
        )

    @property
    def is_awaiting_northflank(self) -> bool:
        """Whether it was sent, and only Northflank can say more of it."""
        sent_states = {AbortState.ACCEPTED, AbortState.UNKNOWN}
        return self.settled_at is None and self.state in sent_states

    @property
    def is_unconfirmed(self) -> bool:
        """Whether it may not have arrived, and more is to come."""
        return self.settled_at is None and self.state == AbortState.UNKNOWN

    @property
    def first_sent_at(self) -> datetime:
        """When it was first sent, by its trail."""
        first = (
            self.events.filter(event_type=EventType.SENT)
            .values_list("occurred_at", flat=True)
            .first()
        )
        return first or self.sent_at or self.requested_at

    def transition(
        self,
        to_state: AbortState,
        event_type: EventType,
        at: datetime,
        *,
        detail: str = "",
        send_number: int | None = None,
        **fields: Any,
    ) -> bool:
        """Bring the act into another state, and write that down; False where it may not go there.

        Whoever was faster wins: an act that has settled, or has gone elsewhere, stays as it is.
        `of_sending`: what came of this sending, which is of no account once there is a later one.
        """
        from_states = [state for state, leads in TRANSITIONS.items() if to_state in leads]
        with transaction.atomic():
            # The run's version first: all writers lock its counter before anything else.
            mark_changed([self.run_id])
            matching = Abort.objects.open().filter(pk=self.pk, state__in=from_states)
            if send_number is not None:
                matching = matching.filter(sendings=send_number)
            if not matching.update(state=to_state, **fields):
                return False
            self.add_event(event_type, at, detail=detail)
        self.refresh_from_db(fields=["state", *fields])
        return True

    def add_event(self, event_type: EventType, at: datetime, *, detail: str = "") -> None:
        """Add a line to the act's trail."""
        AbortEvent.objects.create(abort=self, event_type=event_type, occurred_at=at, detail=detail)


class AbortEvent(models.Model):
    """A line of an act's trail: written once, never changed, never deleted."""

    abort = models.ForeignKey(Abort, models.PROTECT, related_name="events")
    event_type = models.CharField(max_length=14, choices=EventType)
    occurred_at = models.DateTimeField()
    detail = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar = ["pk"]

    def __str__(self) -> str:
        return f"{self.abort_id}: {self.event_type} at {self.occurred_at:%Y-%m-%d %H:%M:%S}"


def open_aborts_by_run(runs: Iterable[int]) -> dict[int, Abort]:
    """Return the open abort of each of these runs that has one, by the run's key."""
    return {abort.run_id: abort for abort in Abort.objects.open().filter(run__in=list(runs))}
