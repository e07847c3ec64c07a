"""Stars: the pipelines and projects that an account has marked as its own."""

from typing import ClassVar

from django.conf import settings
from django.db import models

from dashboard.models.catalog import Pipeline, Project


class Star(models.Model):
    """A pipeline, or a project with all of its pipelines, that a user has marked."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, db_index=False)
    pipeline = models.ForeignKey(Pipeline, models.CASCADE, null=True)
    project = models.ForeignKey(Project, models.CASCADE, null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "pipeline"], name="star_unique_pipeline"),
            models.UniqueConstraint(fields=["user", "project"], name="star_unique_project"),
            models.CheckConstraint(
                condition=models.Q(pipeline=None) ^ models.Q(project=None), name="star_of_one"
            ),
        ]

    def __str__(self) -> str:
        return str(self.pipeline or self.project)
