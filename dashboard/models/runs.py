"""Runs as Northflank last told us, and the counter behind the feed of changes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar

from django.db import models, transaction
from django.db.models import F
from django.db.transaction import TransactionManagementError

from dashboard.db import notify as db_notify
from dashboard.models.catalog import ID_LENGTH, Stage


class ChangeCounter(models.Model):
    """One row: the number last given to a visible change, in the order of the commits."""

    value = models.BigIntegerField(default=0)

    @classmethod
    def reserve(cls, count: int) -> int:
        """Take `count` numbers and return the first, inside the transaction that writes them.

        The row stays locked until that transaction ends, so that a higher number never becomes
        visible before a lower one, nor before the row it was given to. Taking any rings the bell at
        the commit (see db/notify.py). Raises TransactionManagementError outside a transaction.
        """
        if not transaction.get_connection().in_atomic_block:
            raise TransactionManagementError("A change is numbered where it is written: atomically")
        if count:
            db_notify.announce()
        if not cls.objects.filter(pk=1).update(value=F("value") + count):
            cls.objects.get_or_create(pk=1)
            cls.objects.filter(pk=1).update(value=F("value") + count)
        last: int = cls.objects.values_list("value", flat=True).get(pk=1)
        return last - count + 1

    @classmethod
    def latest(cls) -> int:
        """The number of the newest change; 0 before the first."""
        return cls.objects.filter(pk=1).values_list("value", flat=True).first() or 0


STATUS_START = 60  # characters


def status_start() -> models.Func:
    """Return the beginning of a status: no index holds text of any length, which it may be.

    The numbers are part of the template: SQLite takes an index only for the very same expression.
    """
    return models.Func(
        models.F("status"),
        template=f"substr(%(expressions)s, 1, {STATUS_START})",
        output_field=models.TextField(),
    )


class RunQuerySet(models.QuerySet["Run"]):
    def in_flight(self) -> "RunQuerySet":
        """Runs not concluded, as far as Northflank has told us; also what it knows no more."""
        return self.filter(in_flight=True)

    def followed(self) -> "RunQuerySet":
        """Runs in flight that Northflank still knows."""
        return self.in_flight().filter(gone_at=None)

    def whose_flight_is(self, flying: bool) -> "RunQuerySet":
        """Runs in flight, or all others, in a way that every database reads along its indexes."""
        # SQLite takes no index for `NOT in_flight`, which Django writes for an equality.
        return self.filter(in_flight__in=[flying])

    def with_status(self, status: str) -> "RunQuerySet":
        """Runs with a status, read along its index."""
        starting = self.alias(status_start=status_start())
        starting = starting.filter(status_start=status[:STATUS_START])
        # A beginning that is shorter than it may be is the whole, and no row has to be read for it.
        return starting if len(status) < STATUS_START else starting.filter(status=status)

    def with_place(self) -> "RunQuerySet":
        """Runs with their stage, pipeline and project loaded."""
        return self.select_related("stage__pipeline__project")

    def without_detail(self) -> "RunQuerySet":
        """Runs without the large columns that only a run's own page shows."""
        return self.defer("steps", "raw", "description")

    def newest_first(self) -> "RunQuerySet":
        """In flight on top, then by creation, newest first; totally ordered."""
        return self.order_by("-in_flight", "-created_at", "-pk")

    def due(self, now: datetime) -> "RunQuerySet":
        """Runs whose detail the sync should read now."""
        return self.filter(next_read_at__lte=now).order_by("next_read_at", "pk")


class Run(models.Model):
    """One run of a stage's release flow: the list's fields, and its steps once they were read."""

    stage = models.ForeignKey(Stage, models.CASCADE, related_name="runs")
    run_id = models.CharField(max_length=ID_LENGTH, db_index=True)
    name = models.TextField(blank=True)
    description = models.TextField(blank=True)
    status = models.TextField(help_text="As Northflank sent it.")
    concluded = models.BooleanField(help_text="As Northflank sent it.")
    created_at = models.DateTimeField(help_text="First seen by us, where Northflank did not say.")
    started_at = models.DateTimeField(null=True)
    concluded_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(null=True)

    in_flight = models.BooleanField(
        help_text="Not concluded, nor dismissed since Northflank knows it no more."
    )
    overdue = models.PositiveSmallIntegerField(
        default=0, help_text="How far it takes longer than usual: see models/typical_duration.py."
    )
    overdue_why = models.CharField(
        max_length=10, blank=True, help_text="What of it: runs/overdue.py."
    )
    status_since = models.DateTimeField(help_text="When Northflank first told us of this status.")
    aborting_since = models.DateTimeField(
        null=True,
        help_text="When its abort began, by a press here or Northflank's word; or unknown.",
    )
    aborting_level = models.PositiveSmallIntegerField(
        default=0, help_text="How far its abort is overdue: see aborts/severity.py."
    )
    gone_at = models.DateTimeField(null=True, help_text="Since when Northflank knows it no more.")
    first_seen_at = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="When Northflank last told us of it.")
    asked_seq = models.BigIntegerField(
        default=0, help_text="Number of the question whose answer this is: QuestionCounter."
    )
    step = models.TextField(blank=True, help_text="The step it is at, when its detail was read.")
    step_key = models.TextField(blank=True, help_text="What that step is recognised by.")
    step_since = models.DateTimeField(null=True, help_text="When that step started.")
    steps = models.JSONField(null=True, help_text="The root node of its spec, as pages need it.")
    raw = models.JSONField(null=True, help_text="The detail as Northflank sent it, redacted.")
    detail_seen_at = models.DateTimeField(null=True)
    detail_asked_seq = models.BigIntegerField(default=0, help_text="The same, of its detail.")
    version = models.BigIntegerField(db_index=True, help_text="Number of its last visible change.")

    next_read_at = models.DateTimeField(
        null=True, db_index=True, help_text="When the sync reads its detail; the lease, as above."
    )
    failures = models.PositiveIntegerField(
        default=0, help_text="Failed readings of its detail in a row."
    )
    watched_at = models.DateTimeField(null=True, help_text="When a person last looked at it.")

    objects = RunQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["stage", "run_id"], name="one_row_a_run")
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["stage", "-in_flight", "-created_at", "-id"], name="runs_of_a_stage"
            ),
            models.Index(
                "stage",
                status_start(),
                models.F("in_flight").desc(),
                models.F("created_at").desc(),
                models.F("id").desc(),
                name="runs_of_a_status",
            ),
            models.Index(
                fields=["-created_at", "-id"],
                name="runs_in_flight",
                condition=models.Q(in_flight=True),
            ),
            models.Index(fields=["-concluded_at"], name="runs_by_conclusion"),
            models.Index(
                fields=["stage", "-concluded_at", "-id"],
                name="successes_of_a_stage",
                condition=models.Q(status="success", concluded=True),
            ),
            models.Index(
                fields=["stage", "-version"],
                name="news_of_what_ended",
                condition=models.Q(in_flight=False),
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.run_id

    @property
    def is_gone(self) -> bool:
        """Whether Northflank knew it no more before it had concluded."""
        return self.gone_at is not None and not self.concluded

    @property
    def title(self) -> str:
        """What people call it: its name, or its id where it has none."""
        return self.name or self.run_id


def touch(runs: Iterable[int], **changes: Any) -> None:
    """Give each run a new version, and `changes` with it; call inside the writing transaction."""
    keys = sorted(set(runs))
    if not keys:
        return
    first = ChangeCounter.reserve(len(keys))
    for offset, key in enumerate(keys):
        Run.objects.filter(pk=key).update(version=first + offset, **changes)
