# Indexes, constraints and foreign keys are part of their models, since each operation of its own
# would render the models anew at the first start.

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.comparison
from django.conf import settings
from django.db import migrations, models


type Field = tuple[str, models.Field]


def _key() -> Field:
    field = models.BigAutoField(
        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
    )
    return "id", field


def _user(related_name: str) -> Field:
    """An account, whose deletion leaves the row."""
    return "user", models.ForeignKey(
        null=True,
        on_delete=django.db.models.deletion.SET_NULL,
        related_name=related_name,
        to=settings.AUTH_USER_MODEL,
    )


def _audited_request() -> list[Field]:
    """Fields of an abort and of a bulk abort."""
    return [
        ("username", models.TextField()),
        ("reason", models.TextField(blank=True)),
        ("client_address", models.GenericIPAddressField(null=True)),
        (
            "via",
            models.CharField(
                choices=[("page", "Page"), ("api", "Api"), ("command", "Command")],
                default="page",
                max_length=10,
            ),
        ),
        ("token_name", models.TextField(blank=True)),
        ("requested_at", models.DateTimeField()),
    ]


def _catalog_entry() -> list[Field]:
    """Fields of a project and of a pipeline."""
    return [
        ("synced_at", models.DateTimeField()),
        ("missing_since", models.DateTimeField(blank=True, null=True)),
        ("removed_at", models.DateTimeField(blank=True, null=True)),
    ]


def _day_sums(owner: str) -> list[Field]:
    """Fields of the sums of a day, of a stage or a project."""
    return [
        _key(),
        ("day", models.DateField()),
        ("counts", models.JSONField()),
        (
            owner,
            models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="days",
                to=f"dashboard.{owner}",
            ),
        ),
    ]


def _watched() -> list[Field]:
    """Fields of what somebody may have open."""
    return [
        ("last_viewed_at", models.DateTimeField(null=True)),
        ("watched_since", models.DateTimeField(null=True)),
    ]


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AccessEvent",
            fields=[
                _key(),
                ("occurred_at", models.DateTimeField()),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("signed_in", "Signed in"),
                            ("break_glass", "Break-glass sign-in"),
                            ("sign_in_failed", "Sign-in failed"),
                            ("signed_out", "Signed out"),
                            ("session_ended", "Session ended"),
                            ("password_changed", "Password changed"),
                            ("password_refused", "Password change refused"),
                            ("token_created", "Token created"),
                            ("token_first_used", "Token first used"),
                            ("token_refused", "Token refused"),
                            ("token_revoked", "Token revoked"),
                            ("rights_changed", "Rights changed"),
                            ("logs_opened", "Logs opened"),
                        ],
                        max_length=20,
                    ),
                ),
                _user("access_events"),
                ("username", models.TextField(blank=True)),
                ("changed_by", models.TextField(blank=True)),
                ("client_address", models.GenericIPAddressField(null=True)),
                ("token_name", models.TextField(blank=True)),
                ("detail", models.TextField(blank=True)),
            ],
            options={
                "ordering": ["-pk"],
                "indexes": [
                    models.Index(fields=["kind", "id"], name="access_event_kind_idx"),
                    models.Index(fields=["username", "id"], name="access_event_username_idx"),
                    models.Index(fields=["username", "kind", "id"], name="access_event_both_idx"),
                ],
            },
        ),
        migrations.CreateModel(
            name="ApiToken",
            fields=[
                _key(),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="api_tokens",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                (
                    "scope",
                    models.CharField(
                        choices=[("read", "Read"), ("logs", "Logs"), ("abort", "Abort")],
                        default="read",
                        max_length=10,
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64, unique=True)),
                ("prefix", models.CharField(editable=False, max_length=12)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, null=True)),
                ("window_started_at", models.DateTimeField(null=True)),
                ("window_requests", models.PositiveIntegerField(default=0)),
            ],
            options={
                "ordering": ["name", "pk"],
            },
        ),
        migrations.CreateModel(
            name="BulkAbort",
            fields=[
                _key(),
                *_audited_request(),
                ("key", models.UUIDField(unique=True)),
                _user("bulk_aborts"),
                ("claimed_at", models.DateTimeField()),
                ("settled_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="ChangeCounter",
            fields=[
                _key(),
                ("value", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="FailureCounter",
            fields=[
                _key(),
                ("key", models.CharField(max_length=64, unique=True)),
                ("drained_at", models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="Project",
            fields=[
                _key(),
                *_catalog_entry(),
                ("slug", models.CharField(max_length=255, unique=True)),
                ("name", models.TextField(blank=True)),
            ],
        ),
        migrations.CreateModel(
            name="ProxyAccount",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="proxy_account",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Pruning",
            fields=[
                _key(),
                ("finished_at", models.DateTimeField(null=True)),
                ("deleted_runs", models.PositiveBigIntegerField(default=0)),
                ("deleted_steps", models.PositiveBigIntegerField(default=0)),
                ("deleted_access_events", models.PositiveBigIntegerField(default=0)),
                ("run_count", models.PositiveBigIntegerField(default=0)),
                ("oldest_run_at", models.DateTimeField(null=True)),
                ("database_bytes", models.PositiveBigIntegerField(default=0)),
                ("access_log_limit", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="RateBudget",
            fields=[
                _key(),
                ("limit", models.PositiveIntegerField()),
                ("remaining", models.PositiveIntegerField()),
                ("resets_at", models.DateTimeField()),
                ("synced_at", models.DateTimeField()),
                ("own_requests", models.PositiveIntegerField(default=0)),
                ("log_requests", models.PositiveIntegerField(default=0)),
                ("others_rate_before", models.FloatField(null=True)),
                ("burst", models.FloatField(default=0.0)),
                ("backoff_until", models.DateTimeField(null=True)),
                ("refusals", models.PositiveIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="RequestCounter",
            fields=[
                _key(),
                ("value", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="RightsChange",
            fields=[
                _key(),
                ("occurred_at", models.DateTimeField()),
                ("changed_by", models.TextField(blank=True)),
                ("client_address", models.GenericIPAddressField(null=True)),
                (
                    "subject_kind",
                    models.CharField(
                        choices=[
                            ("account", "Account"),
                            ("group", "Group"),
                            ("everybody", "All signed-in users"),
                            ("notice", "Notice rule"),
                        ],
                        max_length=10,
                    ),
                ),
                ("subject_key", models.BigIntegerField()),
                ("subject", models.TextField(blank=True)),
                ("detail", models.TextField(blank=True)),
                ("before", models.JSONField(null=True)),
                ("after", models.JSONField(null=True)),
            ],
            options={
                "ordering": ["-pk"],
                "indexes": [
                    models.Index(
                        fields=["subject_kind", "subject_key", "id"], name="rights_change_key"
                    ),
                    models.Index(fields=["subject", "id"], name="rights_change_name"),
                ],
            },
        ),
        migrations.CreateModel(
            name="SavedView",
            fields=[
                _key(),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="saved_views",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("name", models.CharField(max_length=60)),
                ("query", models.CharField(max_length=4000)),
                ("shared", models.BooleanField(default=False)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("owner", "name"), name="saved_view_unique_name")
                ],
            },
        ),
        migrations.CreateModel(
            name="Session",
            fields=[
                (
                    "session_key",
                    models.CharField(
                        max_length=40, primary_key=True, serialize=False, verbose_name="session key"
                    ),
                ),
                ("session_data", models.TextField(verbose_name="session data")),
                ("expire_date", models.DateTimeField(db_index=True, verbose_name="expire date")),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="sessions",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("created_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                ("last_used_at", models.DateTimeField()),
                ("client_address", models.GenericIPAddressField(null=True)),
                ("browser", models.CharField(blank=True, max_length=60)),
            ],
            options={
                "verbose_name": "session",
                "verbose_name_plural": "sessions",
                "indexes": [
                    models.Index(fields=["user", "-last_used_at"], name="session_user_used_idx")
                ],
            },
        ),
        migrations.CreateModel(
            name="Upstream",
            fields=[
                _key(),
                ("source", models.TextField()),
                ("team", models.TextField(blank=True)),
                ("error", models.CharField(blank=True, max_length=40)),
                ("error_message", models.TextField(blank=True)),
                ("error_since", models.DateTimeField(null=True)),
                ("error_seq", models.BigIntegerField(default=0)),
                ("last_success_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="MetricCounter",
            fields=[
                _key(),
                ("name", models.CharField(max_length=80)),
                ("stage_key", models.BigIntegerField(default=0)),
                ("labels", models.TextField()),
                ("value", models.FloatField()),
                ("run_id", models.TextField(blank=True)),
                ("run_seconds", models.FloatField(default=0)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("name", "stage_key", "labels"), name="metric_counter_unique"
                    )
                ]
            },
        ),
        migrations.CreateModel(
            name="WebhookStats",
            fields=[
                _key(),
                ("last_event_at", models.DateTimeField(null=True)),
                ("last_release_event_at", models.DateTimeField(null=True)),
                ("event_count", models.PositiveBigIntegerField(default=0)),
                ("last_rejected_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="Lead",
            fields=[
                _key(),
                ("holder", models.CharField(blank=True, max_length=255)),
                ("epoch", models.BigIntegerField(default=0)),
                ("taken_at", models.DateTimeField(null=True)),
                ("renewed_at", models.DateTimeField(null=True)),
                ("round_ended_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="Pipeline",
            fields=[
                _key(),
                *_catalog_entry(),
                *_watched(),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pipelines",
                        to="dashboard.project",
                    ),
                ),
                ("slug", models.CharField(max_length=255)),
                ("name", models.TextField(blank=True)),
                ("description", models.TextField(blank=True)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("project", "slug"), name="pipeline_unique_slug")
                ],
            },
        ),
        migrations.CreateModel(
            name="Stage",
            fields=[
                _key(),
                *_watched(),
                (
                    "pipeline",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="stages",
                        to="dashboard.pipeline",
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        choices=[
                            ("Development", "Development"),
                            ("Staging", "Staging"),
                            ("Production", "Production"),
                        ],
                        max_length=20,
                    ),
                ),
                ("has_flow", models.BooleanField(null=True)),
                ("missing_since", models.DateTimeField(blank=True, null=True)),
                ("concurrency_policy", models.TextField(blank=True)),
                ("paused", models.BooleanField(default=False)),
                ("flow_synced_at", models.DateTimeField(blank=True, null=True)),
                ("next_sync_at", models.DateTimeField(db_index=True)),
                ("fresh_until", models.DateTimeField(null=True)),
                ("synced_at", models.DateTimeField(null=True)),
                ("in_flight_incomplete", models.BooleanField(default=False)),
                ("last_run_change_at", models.DateTimeField(null=True)),
                ("last_release_event_at", models.DateTimeField(null=True)),
                ("error", models.CharField(blank=True, max_length=40)),
                ("error_message", models.TextField(blank=True)),
                ("error_since", models.DateTimeField(null=True)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("next_history_page", models.PositiveIntegerField(default=2, null=True)),
                ("pruned_until", models.DateTimeField(null=True)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("pipeline", "name"), name="stage_unique_name")
                ],
            },
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                _key(),
                *_watched(),
                (
                    "stage",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="runs",
                        to="dashboard.stage",
                    ),
                ),
                ("run_id", models.CharField(max_length=255)),
                ("name", models.TextField(blank=True)),
                ("description", models.TextField(blank=True)),
                ("status", models.TextField()),
                ("concluded", models.BooleanField()),
                ("created_at", models.DateTimeField()),
                ("started_at", models.DateTimeField(null=True)),
                ("concluded_at", models.DateTimeField(null=True)),
                ("updated_at", models.DateTimeField(null=True)),
                ("in_flight", models.BooleanField()),
                (
                    "ended_at",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Case(
                            models.When(
                                concluded=True,
                                then=django.db.models.functions.comparison.Coalesce(
                                    "concluded_at", "updated_at", "created_at"
                                ),
                            ),
                            models.When(
                                in_flight=False,
                                then=django.db.models.functions.comparison.Coalesce(
                                    "removed_at", "created_at"
                                ),
                            ),
                        ),
                        null=True,
                        output_field=models.DateTimeField(),
                    ),
                ),
                ("overdue_severity", models.PositiveSmallIntegerField(default=0)),
                ("overdue_reason", models.CharField(blank=True, max_length=10)),
                ("status_since", models.DateTimeField()),
                ("approval_since", models.DateTimeField(null=True)),
                ("aborting_since", models.DateTimeField(null=True)),
                ("abort_severity", models.PositiveSmallIntegerField(default=0)),
                ("removed_at", models.DateTimeField(null=True)),
                ("first_synced_at", models.DateTimeField()),
                ("synced_at", models.DateTimeField()),
                ("request_seq", models.BigIntegerField(default=0)),
                ("step", models.TextField(blank=True)),
                ("step_key", models.TextField(blank=True)),
                ("step_started_at", models.DateTimeField(null=True)),
                ("step_number", models.PositiveIntegerField(null=True)),
                ("step_count", models.PositiveIntegerField(null=True)),
                ("steps", models.BinaryField(null=True)),
                ("steps_removed_at", models.DateTimeField(null=True)),
                ("detail_synced_at", models.DateTimeField(null=True)),
                ("failed_step", models.TextField(null=True)),
                ("failed_step_error", models.TextField(null=True)),
                ("release_key", models.TextField(null=True)),
                ("counted_as", models.TextField(null=True)),
                ("overdue_since", models.DateTimeField(null=True)),
                ("detail_request_seq", models.BigIntegerField(default=0)),
                ("version", models.BigIntegerField(db_index=True)),
                ("next_detail_sync_at", models.DateTimeField(null=True)),
                ("failures", models.PositiveIntegerField(default=0)),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["stage", "-in_flight", "-created_at", "-id"],
                        name="run_stage_created_idx",
                    ),
                    models.Index(
                        models.F("stage"),
                        models.Func(
                            models.F("status"),
                            output_field=models.TextField(),
                            template="substr(%(expressions)s, 1, 60)",
                        ),
                        models.OrderBy(models.F("in_flight"), descending=True),
                        models.OrderBy(models.F("created_at"), descending=True),
                        models.OrderBy(models.F("id"), descending=True),
                        name="run_stage_status_idx",
                    ),
                    models.Index(
                        condition=models.Q(("in_flight", True)),
                        fields=["-created_at", "-id"],
                        name="run_in_flight_idx",
                    ),
                    models.Index(
                        condition=models.Q(("in_flight", True)),
                        fields=["stage", "overdue_severity", "abort_severity"],
                        name="run_in_flight_stage_idx",
                    ),
                    models.Index(fields=["-ended_at"], name="run_ended_at_idx"),
                    models.Index(
                        condition=models.Q(("next_detail_sync_at__isnull", False)),
                        fields=["next_detail_sync_at"],
                        name="run_next_detail_sync_at_idx",
                    ),
                    models.Index(
                        condition=models.Q(("steps__isnull", False)),
                        fields=["ended_at"],
                        name="run_steps_idx",
                    ),
                    models.Index(
                        condition=models.Q(("concluded", True), ("status", "failure")),
                        fields=["-ended_at", "-id"],
                        name="run_failures_idx",
                    ),
                    models.Index(
                        condition=models.Q(("concluded", True), ("status", "success")),
                        fields=["stage", "-concluded_at", "-id"],
                        name="run_stage_successes_idx",
                    ),
                    models.Index(
                        condition=models.Q(("in_flight", False)),
                        fields=["stage", "-version"],
                        name="run_ended_version_idx",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("run_id", "stage"), name="run_unique_in_stage")
                ],
            },
        ),
        migrations.CreateModel(
            name="Work",
            fields=[
                _key(),
                ("step_key", models.TextField()),
                (
                    "kind",
                    models.CharField(
                        choices=[("job_run", "Job Run"), ("build", "Build")], max_length=7
                    ),
                ),
                ("owner_kind", models.CharField(max_length=7)),
                ("owner_id", models.CharField(max_length=255)),
                ("work_id", models.CharField(max_length=255)),
                ("is_probable", models.BooleanField(default=False)),
                ("name", models.TextField()),
                ("status", models.TextField()),
                ("concluded", models.BooleanField()),
                ("started_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                ("last_line_at", models.DateTimeField(null=True)),
                ("synced_at", models.DateTimeField()),
                ("removed_at", models.DateTimeField(null=True)),
                ("error", models.TextField(blank=True)),
                ("next_sync_at", models.DateTimeField(null=True)),
                ("abort_severity", models.PositiveSmallIntegerField(default=0)),
                (
                    "run",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="works",
                        to="dashboard.run",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("run", "kind", "owner_id", "work_id"), name="work_unique_in_run"
                    )
                ],
                "indexes": [
                    models.Index(
                        condition=models.Q(("next_sync_at__isnull", False)),
                        fields=["next_sync_at"],
                        name="work_next_sync_at_idx",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Abort",
            fields=[
                _key(),
                *_audited_request(),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="aborts",
                        to="dashboard.run",
                    ),
                ),
                (
                    "work",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="dashboard.work",
                    ),
                ),
                _user("aborts"),
                (
                    "again_of",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="aborted_again_by",
                        to="dashboard.abort",
                    ),
                ),
                (
                    "bulk_abort",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="aborts",
                        to="dashboard.bulkabort",
                    ),
                ),
                ("already_aborting_since", models.DateTimeField(null=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("requested", "Requested"),
                            ("accepted", "Accepted"),
                            ("concluded", "Concluded"),
                            ("not_sent", "Not Sent"),
                            ("refused", "Refused"),
                            ("unknown", "Unknown"),
                            ("too_late", "Too Late"),
                            ("aborted_again", "Aborted Again"),
                        ],
                        default="requested",
                        max_length=13,
                    ),
                ),
                ("claimed_at", models.DateTimeField()),
                ("sent_at", models.DateTimeField(null=True)),
                ("send_count", models.PositiveSmallIntegerField(default=0)),
                ("responded_at", models.DateTimeField(null=True)),
                ("response", models.TextField(blank=True)),
                ("response_status", models.PositiveSmallIntegerField(null=True)),
                ("error_id", models.TextField(blank=True)),
                ("retry_at", models.DateTimeField(null=True)),
                ("outcome", models.TextField(blank=True)),
                ("settled_at", models.DateTimeField(null=True)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["-requested_at", "-id"], name="abort_requested_at_idx"),
                    models.Index(
                        condition=models.Q(("work__isnull", False)),
                        fields=["work"],
                        name="abort_work_idx",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("settled_at", None), ("work", None)),
                        fields=("run",),
                        name="abort_one_open_per_run",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("settled_at", None)),
                        fields=("work",),
                        name="abort_one_open_per_work",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="AbortEvent",
            fields=[
                _key(),
                (
                    "abort",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="events",
                        to="dashboard.abort",
                    ),
                ),
                (
                    "event_type",
                    models.CharField(
                        choices=[
                            ("requested", "Requested"),
                            ("joined", "Joined"),
                            ("adopted", "Adopted"),
                            ("sent", "Sent"),
                            ("accepted", "Accepted"),
                            ("aborting", "Aborting"),
                            ("refused", "Refused"),
                            ("not_sent", "Not Sent"),
                            ("unknown", "Unknown"),
                            ("not_arrived", "Not Arrived"),
                            ("too_late", "Too Late"),
                            ("concluded", "Concluded"),
                            ("aborted_again", "Aborted Again"),
                            ("late_response", "Late Response"),
                            ("status_changed", "Status Changed After End"),
                        ],
                        max_length=14,
                    ),
                ),
                ("occurred_at", models.DateTimeField()),
                ("detail", models.TextField(blank=True)),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="Acknowledgement",
            fields=[
                _key(),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="acknowledgements",
                        to="dashboard.run",
                    ),
                ),
                _user("acknowledgements"),
                ("username", models.TextField()),
                ("acknowledged_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                ("taken_over_by", models.TextField(blank=True)),
            ],
            options={
                "ordering": ["pk"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("ended_at", None)),
                        fields=("run", "user"),
                        name="acknowledgement_one_open_per_user",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="BulkAbortItem",
            fields=[
                _key(),
                (
                    "bulk_abort",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="items",
                        to="dashboard.bulkabort",
                    ),
                ),
                ("position", models.PositiveIntegerField()),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="bulk_abort_items",
                        to="dashboard.run",
                    ),
                ),
                (
                    "abort",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="bulk_abort_items",
                        to="dashboard.abort",
                    ),
                ),
                (
                    "result",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("abort", "Abort"),
                            ("joined", "Joined"),
                            ("ended", "Ended"),
                            ("not_allowed", "Not Allowed"),
                        ],
                        default="waiting",
                        max_length=12,
                    ),
                ),
                ("note", models.TextField(blank=True)),
            ],
            options={
                "ordering": ["bulk_abort", "position"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("bulk_abort", "run"), name="bulk_abort_item_unique_run"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="CatalogSync",
            fields=[
                _key(),
                (
                    "project",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="catalog_sync",
                        to="dashboard.project",
                    ),
                ),
                ("next_sync_at", models.DateTimeField(db_index=True)),
                ("synced_at", models.DateTimeField(null=True)),
                ("error", models.CharField(blank=True, max_length=40)),
                ("error_message", models.TextField(blank=True)),
                ("error_since", models.DateTimeField(null=True)),
                ("failures", models.PositiveIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="DefaultView",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="default_view",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "view",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="defaults",
                        to="dashboard.savedview",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Dismissal",
            fields=[
                _key(),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="dismissals",
                        to="dashboard.run",
                    ),
                ),
                _user("dismissals"),
                ("username", models.TextField()),
                ("dismissed_at", models.DateTimeField()),
                ("restored_at", models.DateTimeField(null=True)),
                ("restored_by", models.TextField(blank=True)),
            ],
            options={
                "ordering": ["pk"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("restored_at", None)),
                        fields=("run",),
                        name="dismissal_one_open_per_run",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Grant",
            fields=[
                _key(),
                (
                    "group",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="grants",
                        to="auth.group",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="dashboard.project",
                    ),
                ),
                (
                    "stage",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("Development", "Development"),
                            ("Staging", "Staging"),
                            ("Production", "Production"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[("view", "View"), ("logs", "Logs"), ("abort", "Abort")],
                        max_length=10,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ReadRequest",
            fields=[
                _key(),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("link", "A run that was never read, in its stage"),
                            ("search", "A run that was never read, somewhere"),
                            ("refresh", "A stage or a run, now"),
                        ],
                        max_length=10,
                    ),
                ),
                ("run_id", models.CharField(blank=True, max_length=255)),
                ("stages", models.JSONField(default=list)),
                ("requested_at", models.DateTimeField(db_index=True)),
                ("answered_at", models.DateTimeField(null=True)),
                ("error", models.TextField(blank=True)),
                ("reads", models.PositiveIntegerField(default=0)),
                (
                    "stage",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="read_requests",
                        to="dashboard.stage",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="StageTiming",
            fields=[
                _key(),
                (
                    "stage",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="timing",
                        to="dashboard.stage",
                    ),
                ),
                ("observed_run_median", models.FloatField(null=True)),
                ("observed_run_p95", models.FloatField(null=True)),
                ("observed_queue_median", models.FloatField(null=True)),
                ("observed_queue_p95", models.FloatField(null=True)),
                ("observed_steps", models.JSONField(default=dict)),
                ("success_count", models.PositiveIntegerField(default=0)),
                ("detail_count", models.PositiveIntegerField(default=0)),
                (
                    "last_success",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="dashboard.run",
                    ),
                ),
                ("observed_at", models.DateTimeField(null=True)),
                ("approval_keys", models.JSONField(default=list)),
                (
                    "override_run_median",
                    models.FloatField(
                        blank=True,
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="typical duration, in seconds",
                    ),
                ),
                (
                    "override_run_p95",
                    models.FloatField(
                        blank=True,
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="95% of runs take at most, in seconds",
                    ),
                ),
                (
                    "override_queue_median",
                    models.FloatField(
                        blank=True,
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="typical queue time, in seconds",
                    ),
                ),
                (
                    "override_queue_p95",
                    models.FloatField(
                        blank=True,
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="95% of runs wait at most, in seconds",
                    ),
                ),
                (
                    "override_approval_median",
                    models.FloatField(
                        blank=True,
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="typical approval time, in seconds",
                    ),
                ),
                (
                    "override_approval_p95",
                    models.FloatField(
                        blank=True,
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="95% of approvals take at most, in seconds",
                    ),
                ),
            ],
            options={
                "ordering": ["stage"],
            },
        ),
        migrations.CreateModel(
            name="SearchText",
            fields=[
                ("position", models.BigIntegerField(primary_key=True, serialize=False)),
                ("text", models.TextField()),
                (
                    "run",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="search_text",
                        to="dashboard.run",
                    ),
                ),
                (
                    "stage",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="dashboard.stage",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Star",
            fields=[
                _key(),
                (
                    "pipeline",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="dashboard.pipeline",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="dashboard.project",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("user", "pipeline"), name="star_unique_pipeline"
                    ),
                    models.UniqueConstraint(fields=("user", "project"), name="star_unique_project"),
                    models.CheckConstraint(
                        condition=models.Q(("pipeline", None), ("project", None), _connector="XOR"),
                        name="star_of_one",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="StageDay",
            fields=_day_sums("stage"),
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("stage", "day"), name="stage_day_unique")
                ],
            },
        ),
        migrations.CreateModel(
            name="ProjectDay",
            fields=[
                *_day_sums("project"),
                (
                    "stage_name",
                    models.CharField(
                        choices=[
                            ("Development", "Development"),
                            ("Staging", "Staging"),
                            ("Production", "Production"),
                        ],
                        max_length=20,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("project", "stage_name", "day"), name="project_day_unique"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="LastVisit",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("at", models.DateTimeField()),
                ("version", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="NoticeRule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("channel", models.CharField(max_length=40)),
                ("events", models.JSONField()),
                (
                    "stage",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("Development", "Development"),
                            ("Staging", "Staging"),
                            ("Production", "Production"),
                        ],
                        max_length=20,
                    ),
                ),
                ("quiet_from", models.TimeField(blank=True, null=True)),
                ("quiet_until", models.TimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField()),
                (
                    "project",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="dashboard.project",
                    ),
                ),
            ],
            options={
                "ordering": ["channel", "pk"],
            },
        ),
        migrations.CreateModel(
            name="EndRequest",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("channel", models.CharField(max_length=40)),
                ("requested_at", models.DateTimeField()),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="end_requests",
                        to="dashboard.run",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="end_requests",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("run", "user", "channel"), name="end_request_unique"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Notice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("channel", models.CharField(max_length=40)),
                ("cause", models.CharField(max_length=30)),
                ("told", models.JSONField()),
                ("told_at", models.DateTimeField()),
                ("over_at", models.DateTimeField(null=True)),
                (
                    "run",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notices",
                        to="dashboard.run",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("channel", "cause"), name="notice_one_per_cause"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="NoticeMessage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("channel", models.CharField(max_length=40)),
                (
                    "event",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("abort_requested", "Abort requested"),
                            ("approval", "Waiting long for approval"),
                            ("overdue", "Overdue"),
                            ("far_overdue", "Overdue 3×"),
                            ("abort_overdue", "Abort not ended in time"),
                            ("abort_otherwise", "Abort ended otherwise than asked"),
                            ("failed", "Failed"),
                            ("sync_down", "Northflank cannot be read"),
                            ("webhooks_down", "Webhooks are down"),
                            ("behind_plan", "Reading is behind its plan"),
                            ("run_ended", "A run ended that a user asked about"),
                        ],
                        max_length=20,
                    ),
                ),
                ("is_over", models.BooleanField(default=False)),
                ("title", models.TextField()),
                ("body", models.TextField()),
                ("url", models.TextField()),
                ("payload", models.JSONField()),
                ("created_at", models.DateTimeField()),
                ("next_try_at", models.DateTimeField(null=True)),
                ("claimed_at", models.DateTimeField(null=True)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("sent_at", models.DateTimeField(null=True)),
                ("error", models.TextField(blank=True)),
                (
                    "run",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notice_messages",
                        to="dashboard.run",
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("next_try_at__isnull", False)),
                        fields=["next_try_at"],
                        name="notice_message_next_try_idx",
                    ),
                    models.Index(fields=["created_at"], name="notice_message_created_idx"),
                ],
            },
        ),
    ]
