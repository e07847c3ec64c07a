from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [
        ("dashboard", "0011_gone_and_dismissed"),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="QuestionCounter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("value", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.AddField(
            model_name="run",
            name="asked_seq",
            field=models.BigIntegerField(
                default=0, help_text="Number of the question whose answer this is: QuestionCounter."
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="detail_asked_seq",
            field=models.BigIntegerField(default=0, help_text="The same, of its detail."),
        ),
        migrations.AddField(
            model_name="upstream",
            name="error_seq",
            field=models.BigIntegerField(
                default=0, help_text="Number of the newest question when the trouble was noticed."
            ),
        ),
    ]
