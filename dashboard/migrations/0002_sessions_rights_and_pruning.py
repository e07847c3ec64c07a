"""New tables, and columns that may be empty: an older version serves beside them."""

from time import monotonic, sleep

import django.db.models.deletion
from django.conf import settings
from django.db import OperationalError, migrations, models, transaction

LOCK = "LOCK TABLE dashboard_run, dashboard_stage IN ACCESS EXCLUSIVE MODE NOWAIT"
NOT_AVAILABLE = "55P03"  # PostgreSQL's SQLSTATE of a lock that another transaction holds
PATIENCE, INTERVAL = 60, 0.02  # seconds


def lock_tables(apps, schema_editor):
    """Lock the tables that get columns, both at once.

    One after the other, this transaction would hold the first and wait for the second, which a
    transaction of the older version may hold that waits for the first: PostgreSQL ends one of them.
    """
    database = schema_editor.connection
    if database.vendor != "postgresql":
        return
    deadline = monotonic() + PATIENCE
    while True:
        try:
            with transaction.atomic(database.alias):
                schema_editor.execute(LOCK)
        except OperationalError as error:
            if error.__cause__.sqlstate != NOT_AVAILABLE or monotonic() > deadline:
                raise
            sleep(INTERVAL)
        else:
            return


class Migration(migrations.Migration):
    dependencies = [
        ("dashboard", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunPython(lock_tables, migrations.RunPython.noop),
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
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "leased_until",
                    models.DateTimeField(
                        help_text="Lease of the process that prunes; another takes over when it expires.",
                        null=True,
                    ),
                ),
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
            name="RightsChange",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
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
                            ("everybody", "Everybody who is signed in"),
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
            ],
            options={
                "verbose_name": "session",
                "verbose_name_plural": "sessions",
                "abstract": False,
                "indexes": [
                    models.Index(fields=["user", "-last_used_at"], name="session_user_used_idx")
                ],
            },
        ),
        migrations.AlterField(
            model_name="accessevent",
            name="kind",
            field=models.CharField(
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
                ],
                max_length=20,
            ),
        ),
        migrations.AddField(
            model_name="stage",
            name="pruned_until",
            field=models.DateTimeField(
                help_text="Runs that ended earlier were deleted, and are not mirrored again.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="steps_removed_at",
            field=models.DateTimeField(
                help_text="When its steps were deleted: see sync/pruning.py.", null=True
            ),
        ),
        # In the database both columns stay, for the older version: 0004 drops them.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveField(model_name="run", name="raw"),
                migrations.RemoveField(model_name="run", name="steps"),
            ]
        ),
        migrations.AddField(
            model_name="run",
            name="steps",
            field=models.BinaryField(
                db_column="compressed_steps",
                help_text="Root node of the steps, as pages need it.",
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("steps__isnull", False)),
                fields=["ended_at"],
                name="run_steps_idx",
            ),
        ),
    ]
