from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("dashboard", "0001_initial")]

    operations = [
        migrations.AddField(
            "run",
            "overdue_basis",
            models.CharField(blank=True, db_default="", default="", max_length=16),
        ),
        migrations.AddField("run", "turn_since", models.DateTimeField(null=True)),
    ]
