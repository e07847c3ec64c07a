"""Notices: which causes channels are told of, by which rules, and the messages that are sent."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy

from dashboard.db.prepared import Time
from dashboard.models.catalog import Project, Stage, StageName
from dashboard.models.runs import Run

MAX_CHANNEL_LENGTH = 40


class NoticeEvent(models.TextChoices):
    """What a rule can tell of; of several of a run, the last one here is the gravest."""

    ABORT_REQUESTED = "abort_requested", gettext_lazy("Abort requested")
    APPROVAL = "approval", gettext_lazy("Waiting long for approval")
    OVERDUE = "overdue", gettext_lazy("Overdue")
    FAR_OVERDUE = "far_overdue", gettext_lazy("Overdue 3×")
    ABORT_OVERDUE = "abort_overdue", gettext_lazy("Abort not ended in time")
    ABORT_OTHERWISE = "abort_otherwise", gettext_lazy("Abort ended otherwise than asked")
    FAILED = "failed", gettext_lazy("Failed")
    # Of the dashboard itself, in no place.
    SYNC_DOWN = "sync_down", gettext_lazy("Northflank cannot be read")
    WEBHOOKS_DOWN = "webhooks_down", gettext_lazy("Webhooks are down")
    BEHIND_PLAN = "behind_plan", gettext_lazy("Reading is behind its plan")
    # Told to the channel that a user has chosen on the run's page.
    RUN_ENDED = "run_ended", gettext_lazy("A run ended that a user asked about")


DASHBOARD_EVENTS = (NoticeEvent.SYNC_DOWN, NoticeEvent.WEBHOOKS_DOWN, NoticeEvent.BEHIND_PLAN)
# What needs attention: the events of a new rule.
ATTENTION_EVENTS = (
    NoticeEvent.APPROVAL,
    NoticeEvent.OVERDUE,
    NoticeEvent.FAR_OVERDUE,
    NoticeEvent.ABORT_OVERDUE,
    NoticeEvent.FAILED,
)


class NoticeRule(models.Model):
    """Which events of which place are told through which channel."""

    channel = models.CharField(max_length=MAX_CHANNEL_LENGTH)  # A name in NOTIFY_URLS.
    events = models.JSONField()  # Values of NoticeEvent.
    # Empty: all projects.
    project = models.ForeignKey(Project, models.CASCADE, null=True, blank=True)
    stage = models.CharField(max_length=20, choices=StageName, blank=True)  # Empty: all stages.
    # Quiet hours, in TIME_ZONE: nothing is told from the first time until the second. Both or none;
    # they may include midnight.
    quiet_from = models.TimeField(null=True, blank=True)
    quiet_until = models.TimeField(null=True, blank=True)
    created_at = models.DateTimeField()  # What ended earlier is not told.

    class Meta:
        ordering: ClassVar = ["channel", "pk"]

    def covers(self, stage: Stage) -> bool:
        """Return whether it is about runs of a stage, which is loaded with its pipeline."""
        in_project = self.project_id in {None, stage.pipeline.project_id}
        return in_project and self.stage in {"", stage.name}

    @property
    def quiet_hours(self) -> str:
        """The quiet hours, such as “22:00–07:00”; empty if there are none."""
        if self.quiet_from is None or self.quiet_until is None:
            return ""
        return f"{self.quiet_from:%H:%M}–{self.quiet_until:%H:%M}"


class Notice(models.Model):
    """A cause that a channel has been told of: a run, or one of DASHBOARD_EVENTS."""

    channel = models.CharField(max_length=MAX_CHANNEL_LENGTH)
    cause = models.CharField(max_length=30)  # A value of DASHBOARD_EVENTS, or “run-12”.
    run = models.ForeignKey(Run, models.CASCADE, null=True, related_name="notices")
    told = models.JSONField()  # When each event was last told (UTC, ISO 8601), by event.
    told_at = models.DateTimeField()  # When the last message was stored.
    over_at = models.DateTimeField(null=True)  # When it was told to be over.

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["channel", "cause"], name="notice_one_per_cause")
        ]


class MessageQuerySet(models.QuerySet["NoticeMessage"]):
    def due(self, now: Time) -> "MessageQuerySet":
        """Messages to send now, in the order in which they were stored."""
        return self.filter(next_try_at__lte=now).order_by("pk")


class NoticeMessage(models.Model):
    """A message to a channel, stored with its cause, and then sent until it has arrived."""

    channel = models.CharField(max_length=MAX_CHANNEL_LENGTH)
    event = models.CharField(max_length=20, choices=NoticeEvent, blank=True)  # Empty: a test.
    is_over = models.BooleanField(default=False)  # It tells that the cause is over.
    run = models.ForeignKey(Run, models.CASCADE, null=True, related_name="notice_messages")
    title = models.TextField()
    body = models.TextField()
    url = models.TextField()  # Of the page that it is about.
    payload = models.JSONField()  # The same as data, for outgoing webhooks.
    created_at = models.DateTimeField()
    next_try_at = models.DateTimeField(null=True)  # Null: sent, or given up.
    # When the last attempt began or failed; null: none yet.
    claimed_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)  # Why the last attempt failed.

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["pk"]
        indexes: ClassVar = [
            models.Index(
                fields=["next_try_at"],
                name="notice_message_next_try_idx",
                condition=models.Q(next_try_at__isnull=False),
            ),
            models.Index(fields=["created_at"], name="notice_message_created_idx"),
        ]


class EndRequest(models.Model):
    """A user's request that a channel be told when a run ends; deleted when it was."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="end_requests")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="end_requests")
    channel = models.CharField(max_length=MAX_CHANNEL_LENGTH)
    requested_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["run", "user", "channel"], name="end_request_unique")
        ]
