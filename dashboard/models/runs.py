"""Runs as last read from Northflank, and the counter that numbers visible changes."""

from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar

from django.db import models, transaction
from django.db.models import Case, When
from django.db.models.functions import Coalesce
from django.db.transaction import TransactionManagementError

from dashboard.db import notify as db_notify
from dashboard.db.prepared import PreparedQuery, Time, update_row
from dashboard.models.catalog import ID_LENGTH, Stage, Watched
from dashboard.models.compressed_json import CompressedJSONField
from dashboard.models.fast_loading import FastLoading


class ChangeCounter(models.Model):
    """One row: the last number given to a visible change; numbers follow the order of commits."""

    value = models.BigIntegerField(default=0)

    @classmethod
    def lock(cls) -> None:
        """Lock the counter until the transaction ends; call it before that locks any other row.

        Until then all wait who lock the counter or take numbers of it, thus all who give a run a
        new version: of runs, their aborts and acknowledgements only what needs none changes
        meanwhile, such as schedules and leases. Since everybody locks the counter before other
        rows, no two of these writers deadlock. Raise TransactionManagementError outside a
        transaction.
        """
        _verify_in_transaction()
        cls._add(0)

    @classmethod
    def take(cls, count: int) -> int:
        """Take `count` numbers and return the first; call it in the transaction that writes them.

        The counter stays locked until that transaction ends, so that a higher number never becomes
        visible before a lower one, nor before the row it was given to. The lock order is that of
        `lock`. The commit sends a notification (db/notify.py). Raise TransactionManagementError
        outside a transaction.
        """
        _verify_in_transaction()
        db_notify.send(db_notify.Topic.RUNS)
        return cls._add(count) - count + 1

    @classmethod
    def _add(cls, count: int) -> int:
        """Add `count` to the counter and return its value."""
        # One statement instead of two: each change of a run waits for it.
        with transaction.get_connection().cursor() as cursor:
            cursor.execute(
                "UPDATE dashboard_changecounter SET value = value + %s WHERE id = 1 "
                "RETURNING value",
                [count],
            )
            rows: list[tuple[int]] = cursor.fetchall()
        if not rows:  # the first change of all
            cls.objects.get_or_create(pk=1)
            return cls._add(count)
        return rows[0][0]

    @classmethod
    def latest(cls) -> int:
        """Return the number of the newest change; 0 before the first."""
        rows = _latest_change().fetch()
        return rows[0][0] if rows else 0


def _verify_in_transaction() -> None:
    if not transaction.get_connection().in_atomic_block:
        raise TransactionManagementError(
            "Lock the change counter inside the transaction that writes the changes."
        )


@cache
def _latest_change() -> PreparedQuery:
    return PreparedQuery(ChangeCounter.objects.filter(pk=1).values_list("value"))


STATUS_PREFIX_LENGTH = 60  # characters


def status_start() -> models.Func:
    """Return the first STATUS_PREFIX_LENGTH characters of a status, as an indexable expression.

    A status may have any length, which no index can hold. The length is part of the template, since
    SQLite uses an index only for the identical expression.
    """
    return models.Func(
        models.F("status"),
        template=f"substr(%(expressions)s, 1, {STATUS_PREFIX_LENGTH})",
        output_field=models.TextField(),
    )


class RunQuerySet(models.QuerySet["Run"]):
    def in_flight(self) -> "RunQuerySet":
        """Runs not concluded when last read, including removed runs that were not dismissed."""
        return self.filter(in_flight=True)

    def tracked(self) -> "RunQuerySet":
        """Runs in flight that are not removed."""
        return self.in_flight().filter(removed_at=None)

    def with_in_flight(self, in_flight: bool) -> "RunQuerySet":
        """Runs in flight or, if False, all others; every database can use an index for it."""
        # SQLite uses no index for `NOT in_flight`, which is what Django writes for an equality.
        return self.filter(in_flight__in=[in_flight])

    def with_status(self, status: str) -> "RunQuerySet":
        """Runs with a status, found by index."""
        matching = self.alias(status_start=status_start())
        matching = matching.filter(status_start=status[:STATUS_PREFIX_LENGTH])
        # A status shorter than the prefix is matched by the index alone.
        return matching if len(status) < STATUS_PREFIX_LENGTH else matching.filter(status=status)

    def with_stage(self) -> "RunQuerySet":
        """Runs with their stage, pipeline and project loaded."""
        return self.select_related("stage__pipeline__project")

    def without_detail(self) -> "RunQuerySet":
        """Runs without the large columns that only a run's own page shows."""
        return self.defer("steps", "description")

    def newest_first(self) -> "RunQuerySet":
        """Runs in flight first, then by creation, newest first; a total order."""
        return self.order_by("-in_flight", "-created_at", "-pk")

    def successes(self) -> "RunQuerySet":
        """Runs that succeeded, latest first; those of one stage have an index in this order."""
        succeeded = self.filter(status="success", concluded=True, concluded_at__isnull=False)
        return succeeded.order_by("-concluded_at", "-pk")

    def due(self, now: Time) -> "RunQuerySet":
        """Runs whose detail the sync should read now, the longest due first."""
        return self.filter(next_detail_sync_at__lte=now).order_by("next_detail_sync_at", "pk")


class Run(FastLoading, Watched):
    """One run of a stage's release flow: the fields of the list and, once read, its steps."""

    # No indexes of their own: those below begin with them.
    stage = models.ForeignKey(Stage, models.CASCADE, related_name="runs", db_index=False)
    run_id = models.CharField(max_length=ID_LENGTH)
    name = models.TextField(blank=True)
    description = models.TextField(blank=True)
    status = models.TextField()  # As reported by Northflank.
    concluded = models.BooleanField()  # As reported by Northflank.
    created_at = models.DateTimeField()  # When first read, if Northflank reported no time.
    started_at = models.DateTimeField(null=True)
    concluded_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(null=True)

    in_flight = models.BooleanField()  # Not concluded, and not dismissed after its removal.
    # Computed by the database, so that no writer can forget it.
    # When it concluded or, if that is not known, was last updated or created; when the removal of a
    # dismissed run was noticed. Empty: in flight.
    ended_at = models.GeneratedField(
        expression=Case(
            # Northflank may omit concludedAt.
            When(concluded=True, then=Coalesce("concluded_at", "updated_at", "created_at")),
            When(in_flight=False, then=Coalesce("removed_at", "created_at")),
        ),
        output_field=models.DateTimeField(),
        db_persist=True,
        null=True,  # so that `exclude` keeps rows without it
    )
    # Severity of the run being overdue: see runs/overdue.py.
    overdue_severity = models.PositiveSmallIntegerField(default=0)
    # Why it is overdue: see runs/overdue.py.
    overdue_reason = models.CharField(max_length=10, blank=True)
    # Digest of the run's own state when it was last judged: see runs/overdue.py.
    overdue_basis = models.CharField(max_length=16, blank=True, default="", db_default="")
    # Since when a queued run could have started; empty: it waits behind another run, or the next
    # check decides.
    turn_since = models.DateTimeField(null=True)
    status_since = models.DateTimeField()  # When this status was first read.
    # Since when it waits for an approval: see runs/overdue.py.
    approval_since = models.DateTimeField(null=True)
    # When the abort began, as requested here or reported by Northflank; empty: unknown.
    aborting_since = models.DateTimeField(null=True)
    # Severity of its abort being overdue: see aborts/severity.py.
    abort_severity = models.PositiveSmallIntegerField(default=0)
    removed_at = models.DateTimeField(null=True)  # When its removal from Northflank was noticed.
    first_synced_at = models.DateTimeField()
    synced_at = models.DateTimeField()  # When it was last read.
    # Number of the request it was last read with: see RequestCounter.
    request_seq = models.BigIntegerField(default=0)
    step = models.TextField(blank=True)  # Current step, as of the last read of its detail.
    step_key = models.TextField(blank=True)  # Key of the current step.
    step_started_at = models.DateTimeField(null=True)  # When the current step started.
    # Place of the current step among all, from 1; groups do not count.
    step_number = models.PositiveIntegerField(null=True)
    step_count = models.PositiveIntegerField(null=True)  # How many steps there are.
    # What it released, as its steps name it: “commit” or “build”, and their ids. Empty: not known.
    release_key = models.TextField(null=True)
    # As what the sums of days contain it: see runs/trends.py; empty: not yet, or it has not
    # concluded.
    counted_as = models.TextField(null=True)
    # Step at which it failed; empty: none names an error; null: it has not failed, or its detail
    # was not read since.
    failed_step = models.TextField(null=True)
    # First line of that step's error, cut: see runs/failures.py.
    failed_step_error = models.TextField(null=True)
    # When it was last found to have become overdue; kept when it no longer is.
    overdue_since = models.DateTimeField(null=True)
    steps = CompressedJSONField(null=True)  # Root node of the steps, as pages need it.
    # When its steps were deleted: see sync/pruning.py.
    steps_removed_at = models.DateTimeField(null=True)
    detail_synced_at = models.DateTimeField(null=True)
    # Number of the request its detail was last read with.
    detail_request_seq = models.BigIntegerField(default=0)
    version = models.BigIntegerField(db_index=True)  # Number of its latest visible change.

    # When its detail is due to be read; also the lease of the worker reading it.
    next_detail_sync_at = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0)  # Consecutive failed reads of its detail.

    objects = RunQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            # The id first, so that a run is found by its id alone, too.
            models.UniqueConstraint(fields=["run_id", "stage"], name="run_unique_in_stage")
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["stage", "-in_flight", "-created_at", "-id"], name="run_stage_created_idx"
            ),
            models.Index(
                "stage",
                status_start(),
                models.F("in_flight").desc(),
                models.F("created_at").desc(),
                models.F("id").desc(),
                name="run_stage_status_idx",
            ),
            models.Index(
                fields=["-created_at", "-id"],
                name="run_in_flight_idx",
                condition=models.Q(in_flight=True),
            ),
            # For counts by stage: SQLite, which has no statistics, would read all of their runs.
            models.Index(
                fields=["stage", "overdue_severity", "abort_severity"],
                name="run_in_flight_stage_idx",
                condition=models.Q(in_flight=True),
            ),
            models.Index(fields=["-ended_at"], name="run_ended_at_idx"),
            models.Index(
                fields=["next_detail_sync_at"],
                name="run_next_detail_sync_at_idx",
                condition=models.Q(next_detail_sync_at__isnull=False),
            ),
            models.Index(
                fields=["ended_at"],
                name="run_steps_idx",
                condition=models.Q(steps__isnull=False),
            ),
            models.Index(
                fields=["-ended_at", "-id"],
                name="run_failures_idx",
                condition=models.Q(status="failure", concluded=True),
            ),
            models.Index(
                fields=["stage", "-concluded_at", "-id"],
                name="run_stage_successes_idx",
                condition=models.Q(status="success", concluded=True),
            ),
            models.Index(
                fields=["stage", "-version"],
                name="run_ended_version_idx",
                condition=models.Q(in_flight=False),
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.run_id

    @property
    def is_tracked(self) -> bool:
        """Whether the run is in flight and not removed."""
        return self.in_flight and self.removed_at is None

    @property
    def has_failed(self) -> bool:
        """Whether the run has ended in failure."""
        return self.concluded and self.status == "failure"

    @property
    def has_final_detail(self) -> bool:
        """Whether its detail was read once it had ended, so that all steps have their durations."""
        read_at = self.detail_synced_at
        return self.concluded and read_at is not None and read_at >= self.status_since

    @property
    def has_unknown_end(self) -> bool:
        """Whether the run was removed before it had concluded."""
        return self.removed_at is not None and not self.concluded

    @property
    def title(self) -> str:
        """The run's name or, if it has none, its id."""
        return self.name or self.run_id


def mark_changed(run_pks: Iterable[int], **fields: Any) -> None:
    """Give each run a new version and set `fields`; call it inside the writing transaction."""
    pks = sorted(set(run_pks))
    if not pks:
        return
    first = ChangeCounter.take(len(pks))
    for offset, key in enumerate(pks):
        update_row(Run, key, version=first + offset, **fields)
