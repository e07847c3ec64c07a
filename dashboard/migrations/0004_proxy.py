import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dashboard", "0001_initial"),
    ]

    operations = [
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
                    ("token_created", "Token created"),
                    ("token_first_used", "Token first used"),
                    ("token_refused", "Token refused"),
                    ("token_revoked", "Token revoked"),
                    ("rights_changed", "Rights changed"),
                ],
                max_length=20,
            ),
        ),
    ]
