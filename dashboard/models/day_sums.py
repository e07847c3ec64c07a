"""How many runs ended in a day, as what: the sums that trends are made of, whatever was pruned.

What is counted: see runs/trends.py. Kept by sync/day_sums.py.
"""

from typing import ClassVar

from django.db import models

from dashboard.models.catalog import Project, Stage, StageName


class DaySums(models.Model):
    """Abstract: the sums of one day."""

    day = models.DateField()  # In UTC, when the runs ended.
    counts = models.JSONField()  # Number of runs by what they count as: {"success": 3}.

    class Meta:
        abstract = True


class StageDay(DaySums):
    # No index of its own: the constraint's begins with it.
    stage = models.ForeignKey(Stage, models.CASCADE, related_name="days", db_index=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["stage", "day"], name="stage_day_unique")
        ]


class ProjectDay(DaySums):
    """The sums of all stages of one name in a project: rights are by project and name."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="days", db_index=False)
    stage_name = models.CharField(max_length=20, choices=StageName)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["project", "stage_name", "day"], name="project_day_unique"
            )
        ]
