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
        ("username", models.TextField(help_text="Kept after the account is deleted.")),
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
        (
            "token_name",
            models.TextField(blank=True, help_text="Name of the API token used, if any."),
        ),
        ("requested_at", models.DateTimeField()),
    ]


def _catalog_entry() -> list[Field]:
    """Fields of a project and of a pipeline."""
    return [
        ("synced_at", models.DateTimeField(help_text="When Northflank last listed it.")),
        (
            "missing_since",
            models.DateTimeField(
                blank=True,
                help_text="When it was first missing from a complete list; a later list confirms the removal.",
                null=True,
            ),
        ),
        (
            "removed_at",
            models.DateTimeField(
                blank=True,
                help_text="When its removal from Northflank was confirmed.",
                null=True,
            ),
        ),
    ]


def _day_sums(owner: str) -> list[Field]:
    """Fields of the sums of a day, of a stage or a project."""
    return [
        _key(),
        ("day", models.DateField(help_text="In UTC, when the runs ended.")),
        (
            "counts",
            models.JSONField(help_text='Number of runs by what they count as: {"success": 3}.'),
        ),
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
        (
            "last_viewed_at",
            models.DateTimeField(help_text="When a user last viewed it.", null=True),
        ),
        (
            "watched_since",
            models.DateTimeField(
                help_text="Since when it has been viewed without a break.", null=True
            ),
        ),
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
                (
                    "username",
                    models.TextField(
                        blank=True,
                        help_text="Account concerned, kept after its deletion; empty: none exists.",
                    ),
                ),
                (
                    "changed_by",
                    models.TextField(
                        blank=True,
                        help_text="Who made the change, for changes of tokens and rights.",
                    ),
                ),
                ("client_address", models.GenericIPAddressField(null=True)),
                (
                    "token_name",
                    models.TextField(blank=True, help_text="API token concerned, if any."),
                ),
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
                (
                    "name",
                    models.CharField(
                        help_text="What the token is for, such as “PagerDuty runbook”.",
                        max_length=100,
                    ),
                ),
                (
                    "scope",
                    models.CharField(
                        choices=[("read", "Read"), ("logs", "Logs"), ("abort", "Abort")],
                        default="read",
                        max_length=10,
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64, unique=True)),
                (
                    "prefix",
                    models.CharField(
                        editable=False, help_text="First characters of the secret.", max_length=12
                    ),
                ),
                ("created_at", models.DateTimeField()),
                (
                    "expires_at",
                    models.DateTimeField(blank=True, help_text="Empty: never expires.", null=True),
                ),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                (
                    "last_used_at",
                    models.DateTimeField(
                        blank=True, help_text="When the token was last used.", null=True
                    ),
                ),
                (
                    "window_started_at",
                    models.DateTimeField(
                        help_text="Start of the current rate limit window.", null=True
                    ),
                ),
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
                ("key", models.UUIDField(help_text="Idempotency key of the form.", unique=True)),
                _user("bulk_aborts"),
                (
                    "claimed_at",
                    models.DateTimeField(help_text="When a process last renewed its lease."),
                ),
                (
                    "settled_at",
                    models.DateTimeField(help_text="When all its runs were processed.", null=True),
                ),
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
                (
                    "key",
                    models.CharField(
                        help_text="Digest of what is counted.", max_length=64, unique=True
                    ),
                ),
                (
                    "drained_at",
                    models.DateTimeField(
                        db_index=True,
                        help_text="When all failures so far will have been forgotten.",
                    ),
                ),
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
                (
                    "finished_at",
                    models.DateTimeField(help_text="When the last pass was complete.", null=True),
                ),
                ("deleted_runs", models.PositiveBigIntegerField(default=0)),
                (
                    "deleted_steps",
                    models.PositiveBigIntegerField(
                        default=0, help_text="Number of runs whose steps were deleted."
                    ),
                ),
                ("deleted_access_events", models.PositiveBigIntegerField(default=0)),
                ("run_count", models.PositiveBigIntegerField(default=0)),
                (
                    "oldest_run_at",
                    models.DateTimeField(help_text="When the oldest run kept ended.", null=True),
                ),
                ("database_bytes", models.PositiveBigIntegerField(default=0)),
                (
                    "access_log_limit",
                    models.DateTimeField(
                        help_text="Access events before may be deleted; set only inside the transaction that does.",
                        null=True,
                    ),
                ),
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
                (
                    "own_requests",
                    models.PositiveIntegerField(
                        default=0, help_text="Requests of this dashboard in this window."
                    ),
                ),
                (
                    "log_requests",
                    models.PositiveIntegerField(
                        default=0, help_text="Of these, those for the logs that people look at."
                    ),
                ),
                (
                    "others_rate_before",
                    models.FloatField(
                        help_text="Requests per second of other clients before this window; empty: unknown.",
                        null=True,
                    ),
                ),
                (
                    "burst",
                    models.FloatField(
                        default=0.0,
                        help_text="Requests sent ahead of an even rate, as of the last response.",
                    ),
                ),
                (
                    "backoff_until",
                    models.DateTimeField(help_text="End of the pause after a 429.", null=True),
                ),
                (
                    "refusals",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="Consecutive 429s, each after the pause of the previous one.",
                    ),
                ),
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
                (
                    "changed_by",
                    models.TextField(
                        blank=True,
                        help_text="User name; empty: no account, as for an identity provider.",
                    ),
                ),
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
                ("subject_key", models.BigIntegerField(help_text="Primary key; 0 for everybody.")),
                (
                    "subject",
                    models.TextField(
                        blank=True,
                        help_text="Name after the change, or before a deletion; empty for everybody.",
                    ),
                ),
                ("detail", models.TextField(blank=True, help_text="What was done, as a sentence.")),
                (
                    "before",
                    models.JSONField(
                        help_text="State in plain names; null: did not exist.", null=True
                    ),
                ),
                ("after", models.JSONField(help_text="The same; null: deleted.", null=True)),
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
                (
                    "query",
                    models.CharField(
                        help_text="Query string of the stage page, without the position in the list.",
                        max_length=4000,
                    ),
                ),
                (
                    "shared",
                    models.BooleanField(default=False, help_text="Visible to all signed-in users."),
                ),
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
                ("created_at", models.DateTimeField(help_text="Time of the sign-in.")),
                (
                    "ends_at",
                    models.DateTimeField(
                        help_text="Until when it can be used; expire_date is earlier if it is not used for long."
                    ),
                ),
                (
                    "last_used_at",
                    models.DateTimeField(help_text="Last page view or form, to the minute."),
                ),
                (
                    "client_address",
                    models.GenericIPAddressField(help_text="Address of the sign-in.", null=True),
                ),
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
                (
                    "source",
                    models.TextField(help_text="Base URL and team; 'sandbox' for the sandbox."),
                ),
                (
                    "team",
                    models.TextField(blank=True, help_text="Team slug, for links to Northflank."),
                ),
                (
                    "error",
                    models.CharField(
                        blank=True, help_text="Cause of the current outage, if any.", max_length=40
                    ),
                ),
                ("error_message", models.TextField(blank=True)),
                ("error_since", models.DateTimeField(null=True)),
                (
                    "error_seq",
                    models.BigIntegerField(
                        default=0, help_text="Number of the latest request when the outage began."
                    ),
                ),
                (
                    "last_success_at",
                    models.DateTimeField(help_text="When a request last succeeded.", null=True),
                ),
            ],
        ),
        migrations.CreateModel(
            name="MetricCounter",
            fields=[
                _key(),
                ("name", models.CharField(max_length=80)),
                (
                    "stage_key",
                    models.BigIntegerField(default=0, help_text="Key of the stage; 0: of none."),
                ),
                (
                    "labels",
                    models.TextField(
                        help_text="Values as a JSON list; of a histogram, its bound last."
                    ),
                ),
                ("value", models.FloatField()),
                (
                    "run_id",
                    models.TextField(
                        blank=True, help_text="Of a bucket, the last run that it counts."
                    ),
                ),
                (
                    "run_seconds",
                    models.FloatField(default=0, help_text="The duration of that run."),
                ),
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
                (
                    "last_event_at",
                    models.DateTimeField(
                        help_text="When the last authentic event arrived.", null=True
                    ),
                ),
                (
                    "last_release_event_at",
                    models.DateTimeField(
                        help_text="When the last event about a release flow arrived.", null=True
                    ),
                ),
                (
                    "event_count",
                    models.PositiveBigIntegerField(default=0, help_text="All authentic events."),
                ),
                (
                    "last_rejected_at",
                    models.DateTimeField(
                        help_text="When a request with a wrong secret was last recorded.", null=True
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Lead",
            fields=[
                _key(),
                (
                    "holder",
                    models.CharField(
                        blank=True, help_text="Empty: no process leads.", max_length=255
                    ),
                ),
                (
                    "epoch",
                    models.BigIntegerField(
                        default=0, help_text="Grows with each change of the holder."
                    ),
                ),
                ("taken_at", models.DateTimeField(null=True)),
                ("renewed_at", models.DateTimeField(null=True)),
                (
                    "round_ended_at",
                    models.DateTimeField(
                        help_text="When its holder last looked for due reads without a failure.",
                        null=True,
                    ),
                ),
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
                ("has_flow", models.BooleanField(help_text="Empty: not read yet.", null=True)),
                (
                    "missing_since",
                    models.DateTimeField(
                        blank=True, help_text="When its release flow was first missing.", null=True
                    ),
                ),
                ("concurrency_policy", models.TextField(blank=True)),
                ("paused", models.BooleanField(default=False)),
                ("flow_synced_at", models.DateTimeField(blank=True, null=True)),
                ("next_sync_at", models.DateTimeField(db_index=True)),
                (
                    "fresh_until",
                    models.DateTimeField(
                        help_text="Until when its last read counts as fresh.", null=True
                    ),
                ),
                (
                    "synced_at",
                    models.DateTimeField(help_text="When its runs were last read.", null=True),
                ),
                (
                    "in_flight_incomplete",
                    models.BooleanField(
                        default=False,
                        help_text="The newest runs were read, but not the older ones in flight.",
                    ),
                ),
                (
                    "last_run_change_at",
                    models.DateTimeField(help_text="When one of its runs last changed.", null=True),
                ),
                (
                    "last_release_event_at",
                    models.DateTimeField(
                        help_text="When a webhook event last triggered a read.", null=True
                    ),
                ),
                (
                    "error",
                    models.CharField(
                        blank=True, help_text="Cause of the last failure.", max_length=40
                    ),
                ),
                ("error_message", models.TextField(blank=True)),
                ("error_since", models.DateTimeField(null=True)),
                (
                    "failures",
                    models.PositiveIntegerField(default=0, help_text="Consecutive failed reads."),
                ),
                (
                    "next_history_page",
                    models.PositiveIntegerField(
                        default=2,
                        help_text="Next page of past runs to read; empty: all are read.",
                        null=True,
                    ),
                ),
                (
                    "pruned_until",
                    models.DateTimeField(
                        help_text="Runs that ended earlier were deleted, and are not mirrored again.",
                        null=True,
                    ),
                ),
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
                ("status", models.TextField(help_text="As reported by Northflank.")),
                ("concluded", models.BooleanField(help_text="As reported by Northflank.")),
                (
                    "created_at",
                    models.DateTimeField(
                        help_text="When first read, if Northflank reported no time."
                    ),
                ),
                ("started_at", models.DateTimeField(null=True)),
                ("concluded_at", models.DateTimeField(null=True)),
                ("updated_at", models.DateTimeField(null=True)),
                (
                    "in_flight",
                    models.BooleanField(
                        help_text="Not concluded, and not dismissed after its removal."
                    ),
                ),
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
                        help_text="When it concluded or, if that is not known, was last updated or created; when the removal of a dismissed run was noticed. Empty: in flight.",
                        null=True,
                        output_field=models.DateTimeField(),
                    ),
                ),
                (
                    "overdue_severity",
                    models.PositiveSmallIntegerField(
                        default=0,
                        help_text="Severity of the run being overdue: see runs/overdue.py.",
                    ),
                ),
                (
                    "overdue_reason",
                    models.CharField(
                        blank=True,
                        help_text="Why it is overdue: see runs/overdue.py.",
                        max_length=10,
                    ),
                ),
                (
                    "status_since",
                    models.DateTimeField(help_text="When this status was first read."),
                ),
                (
                    "approval_since",
                    models.DateTimeField(
                        help_text="Since when it waits for an approval: see runs/overdue.py.",
                        null=True,
                    ),
                ),
                (
                    "aborting_since",
                    models.DateTimeField(
                        help_text="When the abort began, as requested here or reported by Northflank; empty: unknown.",
                        null=True,
                    ),
                ),
                (
                    "abort_severity",
                    models.PositiveSmallIntegerField(
                        default=0,
                        help_text="Severity of its abort being overdue: see aborts/severity.py.",
                    ),
                ),
                (
                    "removed_at",
                    models.DateTimeField(
                        help_text="When its removal from Northflank was noticed.", null=True
                    ),
                ),
                ("first_synced_at", models.DateTimeField()),
                ("synced_at", models.DateTimeField(help_text="When it was last read.")),
                (
                    "request_seq",
                    models.BigIntegerField(
                        default=0,
                        help_text="Number of the request it was last read with: see RequestCounter.",
                    ),
                ),
                (
                    "step",
                    models.TextField(
                        blank=True, help_text="Current step, as of the last read of its detail."
                    ),
                ),
                ("step_key", models.TextField(blank=True, help_text="Key of the current step.")),
                (
                    "step_started_at",
                    models.DateTimeField(help_text="When the current step started.", null=True),
                ),
                (
                    "step_number",
                    models.PositiveIntegerField(
                        help_text="Place of the current step among all, from 1; groups do not count.",
                        null=True,
                    ),
                ),
                (
                    "step_count",
                    models.PositiveIntegerField(help_text="How many steps there are.", null=True),
                ),
                (
                    "steps",
                    models.BinaryField(
                        help_text="Root node of the steps, as pages need it.", null=True
                    ),
                ),
                (
                    "steps_removed_at",
                    models.DateTimeField(
                        help_text="When its steps were deleted: see sync/pruning.py.", null=True
                    ),
                ),
                ("detail_synced_at", models.DateTimeField(null=True)),
                (
                    "failed_step",
                    models.TextField(
                        help_text="Step at which it failed; empty: none names an error; null: it has "
                        "not failed, or its detail was not read since.",
                        null=True,
                    ),
                ),
                (
                    "failed_step_error",
                    models.TextField(
                        help_text="First line of that step's error, cut: see runs/failures.py.",
                        null=True,
                    ),
                ),
                (
                    "release_key",
                    models.TextField(
                        help_text="What it released, as its steps name it: “commit” or “build”, and "
                        "their ids. Empty: not known.",
                        null=True,
                    ),
                ),
                (
                    "counted_as",
                    models.TextField(
                        help_text="As what the sums of days contain it: see runs/trends.py; empty: "
                        "not yet, or it has not concluded.",
                        null=True,
                    ),
                ),
                (
                    "overdue_since",
                    models.DateTimeField(
                        help_text="When it was last found to have become overdue; kept when it no "
                        "longer is.",
                        null=True,
                    ),
                ),
                (
                    "detail_request_seq",
                    models.BigIntegerField(
                        default=0, help_text="Number of the request its detail was last read with."
                    ),
                ),
                (
                    "version",
                    models.BigIntegerField(
                        db_index=True, help_text="Number of its latest visible change."
                    ),
                ),
                (
                    "next_detail_sync_at",
                    models.DateTimeField(
                        help_text="When its detail is due to be read; also the lease of the worker reading it.",
                        null=True,
                    ),
                ),
                (
                    "failures",
                    models.PositiveIntegerField(
                        default=0, help_text="Consecutive failed reads of its detail."
                    ),
                ),
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
                ("step_key", models.TextField(help_text="Key of the step, as of `Run.step_key`.")),
                (
                    "kind",
                    models.CharField(
                        choices=[("job_run", "Job Run"), ("build", "Build")], max_length=7
                    ),
                ),
                (
                    "owner_kind",
                    models.CharField(help_text="Whose it is: job or service.", max_length=7),
                ),
                ("owner_id", models.CharField(max_length=255)),
                ("work_id", models.CharField(max_length=255)),
                (
                    "is_probable",
                    models.BooleanField(
                        default=False,
                        help_text="No step names it; it was found by its time. Never aborted.",
                    ),
                ),
                ("name", models.TextField()),
                (
                    "status",
                    models.TextField(help_text="As reported by Northflank; empty: not read yet."),
                ),
                ("concluded", models.BooleanField(help_text="As reported by Northflank.")),
                ("started_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "last_line_at",
                    models.DateTimeField(
                        help_text="Time of the last line of its log that was read.", null=True
                    ),
                ),
                (
                    "synced_at",
                    models.DateTimeField(
                        help_text="When it was last read; before that, when its step was found to "
                        "name it."
                    ),
                ),
                (
                    "removed_at",
                    models.DateTimeField(help_text="When Northflank no longer had it.", null=True),
                ),
                (
                    "error",
                    models.TextField(
                        blank=True, help_text="Why the last read failed; empty: it did not."
                    ),
                ),
                (
                    "next_sync_at",
                    models.DateTimeField(
                        help_text="When it is due to be read, as an abort may have left it running.",
                        null=True,
                    ),
                ),
                (
                    "abort_severity",
                    models.PositiveSmallIntegerField(
                        default=0,
                        help_text="Severity of its abort being overdue: see aborts/severity.py.",
                    ),
                ),
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
                        help_text="What is aborted, of those that the run has left running; empty: "
                        "the run itself.",
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
                        help_text="The abort without effect, after which this one was requested.",
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
                (
                    "already_aborting_since",
                    models.DateTimeField(
                        help_text="Start of an earlier abort of the run still in progress, if any.",
                        null=True,
                    ),
                ),
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
                (
                    "claimed_at",
                    models.DateTimeField(help_text="When a process last took its lease."),
                ),
                (
                    "sent_at",
                    models.DateTimeField(
                        help_text="Set just before each send; from then on the abort may have arrived.",
                        null=True,
                    ),
                ),
                (
                    "send_count",
                    models.PositiveSmallIntegerField(
                        default=0, help_text="Number of sends, equal to its events of type sent."
                    ),
                ),
                ("responded_at", models.DateTimeField(null=True)),
                (
                    "response",
                    models.TextField(blank=True, help_text="Northflank's response, as text."),
                ),
                (
                    "response_status",
                    models.PositiveSmallIntegerField(
                        help_text="HTTP status of the response.", null=True
                    ),
                ),
                ("error_id", models.TextField(blank=True, help_text="Northflank's error ID.")),
                (
                    "retry_at",
                    models.DateTimeField(help_text="When Northflank's rate limit ends.", null=True),
                ),
                (
                    "outcome",
                    models.TextField(
                        blank=True, help_text="The target's status when it concluded."
                    ),
                ),
                (
                    "settled_at",
                    models.DateTimeField(
                        help_text="When the abort reached its final state.", null=True
                    ),
                ),
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
                ("username", models.TextField(help_text="Kept after the account is deleted.")),
                ("acknowledged_at", models.DateTimeField()),
                (
                    "ended_at",
                    models.DateTimeField(
                        help_text="When it was handed back or taken over, or the run ended.",
                        null=True,
                    ),
                ),
                (
                    "taken_over_by",
                    models.TextField(blank=True, help_text="User who took it over, if any."),
                ),
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
                        help_text="The run's abort: its own, or the open one it joined.",
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
                ("note", models.TextField(blank=True, help_text="Explanation of the result.")),
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
                ("username", models.TextField(help_text="Kept after the account is deleted.")),
                ("dismissed_at", models.DateTimeField()),
                ("restored_at", models.DateTimeField(null=True)),
                (
                    "restored_by",
                    models.TextField(
                        blank=True, help_text="Empty: Northflank listed the run again."
                    ),
                ),
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
                        help_text="Empty: all signed-in users.",
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
                        help_text="Empty: all projects.",
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
                        help_text="Empty: all stages.",
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
                (
                    "stages",
                    models.JSONField(
                        default=list,
                        help_text="Of a search: keys of the stages that may have the run.",
                    ),
                ),
                ("requested_at", models.DateTimeField(db_index=True)),
                (
                    "answered_at",
                    models.DateTimeField(
                        help_text="When it was found, or to be in none of the stages.", null=True
                    ),
                ),
                ("error", models.TextField(blank=True, help_text="Why it could not be answered.")),
                (
                    "reads",
                    models.PositiveIntegerField(
                        default=0, help_text="Requests to Northflank in the last hour."
                    ),
                ),
                (
                    "stage",
                    models.ForeignKey(
                        help_text="Not of a search.",
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
                (
                    "observed_run_median",
                    models.FloatField(help_text="From start to end, without approvals.", null=True),
                ),
                ("observed_run_p95", models.FloatField(null=True)),
                (
                    "observed_queue_median",
                    models.FloatField(help_text="From a run's creation to its start.", null=True),
                ),
                ("observed_queue_p95", models.FloatField(null=True)),
                (
                    "observed_steps",
                    models.JSONField(default=dict, help_text="Median and p95 of each step."),
                ),
                (
                    "success_count",
                    models.PositiveIntegerField(
                        default=0, help_text="Number of successes in the baseline."
                    ),
                ),
                (
                    "detail_count",
                    models.PositiveIntegerField(
                        default=0, help_text="Number of successes with known steps."
                    ),
                ),
                (
                    "last_success",
                    models.ForeignKey(
                        help_text="Latest success in the baseline.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="dashboard.run",
                    ),
                ),
                ("observed_at", models.DateTimeField(null=True)),
                (
                    "approval_keys",
                    models.JSONField(
                        default=list, help_text="Keys of the steps that are approvals."
                    ),
                ),
                (
                    "override_run_median",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds that a run typically takes (600 for 10 min). Empty: the baseline.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="typical duration",
                    ),
                ),
                (
                    "override_run_p95",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds that 95% of runs stay within. Empty: the typical duration.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="longest typical duration",
                    ),
                ),
                (
                    "override_queue_median",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds that a run typically waits to start. Empty: the baseline.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="typical queue time",
                    ),
                ),
                (
                    "override_queue_p95",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds that 95% of runs wait at most. Empty: the typical queue time.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="longest typical queue time",
                    ),
                ),
                (
                    "override_approval_median",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds that an approval typically takes. Empty: the baseline of each approval.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="typical approval time",
                    ),
                ),
                (
                    "override_approval_p95",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds that 95% of approvals take at most. Empty: the typical approval time.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(2592000),
                        ],
                        verbose_name="longest typical approval time",
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
                (
                    "position",
                    models.BigIntegerField(
                        help_text="Place of the run by its creation: see `position`.",
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "text",
                    models.TextField(help_text="Title, id, current step and description, folded."),
                ),
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
                (
                    "version",
                    models.BigIntegerField(
                        help_text="Number of the latest visible change at that time."
                    ),
                ),
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
                ("channel", models.CharField(help_text="A name in NOTIFY_URLS.", max_length=40)),
                ("events", models.JSONField(help_text="Values of NoticeEvent.")),
                (
                    "stage",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("Development", "Development"),
                            ("Staging", "Staging"),
                            ("Production", "Production"),
                        ],
                        help_text="Empty: all stages.",
                        max_length=20,
                    ),
                ),
                ("quiet_from", models.TimeField(blank=True, null=True)),
                ("quiet_until", models.TimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField(help_text="What ended earlier is not told.")),
                (
                    "project",
                    models.ForeignKey(
                        blank=True,
                        help_text="Empty: all projects.",
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
                (
                    "cause",
                    models.CharField(
                        help_text="A value of DASHBOARD_EVENTS, or “run-12”.", max_length=30
                    ),
                ),
                (
                    "told",
                    models.JSONField(
                        help_text="When each event was last told (UTC, ISO 8601), by event."
                    ),
                ),
                ("told_at", models.DateTimeField(help_text="When the last message was stored.")),
                (
                    "over_at",
                    models.DateTimeField(help_text="When it was told to be over.", null=True),
                ),
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
                        help_text="Empty: a test.",
                        max_length=20,
                    ),
                ),
                (
                    "is_over",
                    models.BooleanField(
                        default=False, help_text="It tells that the cause is over."
                    ),
                ),
                ("title", models.TextField()),
                ("body", models.TextField()),
                ("url", models.TextField(help_text="Of the page that it is about.")),
                ("payload", models.JSONField(help_text="The same as data, for outgoing webhooks.")),
                ("created_at", models.DateTimeField()),
                (
                    "next_try_at",
                    models.DateTimeField(help_text="Null: sent, or given up.", null=True),
                ),
                (
                    "claimed_at",
                    models.DateTimeField(
                        help_text="When the last attempt began or failed; null: none yet.",
                        null=True,
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("sent_at", models.DateTimeField(null=True)),
                ("error", models.TextField(blank=True, help_text="Why the last attempt failed.")),
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
