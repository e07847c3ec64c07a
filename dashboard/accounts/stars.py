"""What users have starred, and what they may view of it. Stars change nothing for anybody else."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q

from dashboard.accounts.permissions import Permissions
from dashboard.models import ChangeCounter, Pipeline, Project, Star


@dataclass(frozen=True)
class StarredPermissions(Permissions):
    """Permissions of which only some pipelines count: for what is read, not for who may do what."""

    pipelines: frozenset[int] = frozenset()

    def stage_filter(self, path: str = "") -> Q:
        """Return a filter for the stages of these pipelines that the user may view."""
        pipeline = f"{path}__pipeline__in" if path else "pipeline__in"
        return super().stage_filter(path) & Q(**{pipeline: sorted(self.pipelines)})


def within(permissions: Permissions, pipelines: frozenset[int]) -> StarredPermissions:
    """Return the permissions, of which only some pipelines count."""
    return StarredPermissions(
        permissions.is_signed_in,
        permissions.is_superuser,
        permissions.rules,
        permissions.other_rules,
        permissions.disabled_reason,
        permissions.logs_disabled_reason,
        pipelines,
    )


def exist() -> bool:
    """Return whether anybody has starred anything: pages with stars then differ between users."""
    return Star.objects.exists()


def starred(user: User) -> frozenset[Pipeline | Project]:
    """Return what the user has starred."""
    stars = Star.objects.filter(user=user).select_related("pipeline", "project")
    return frozenset(filter(None, (star.pipeline or star.project for star in stars)))


def starred_pipelines(user: User) -> frozenset[int]:
    """Return the keys of the user's starred pipelines, and of all in starred projects."""
    stars = Star.objects.filter(user=user).values_list("pipeline", "project")
    projects = [project for _pipeline, project in stars if project]
    in_projects = Pipeline.objects.filter(project__in=projects).values_list("pk", flat=True)
    return frozenset([*in_projects, *(pipeline for pipeline, _project in stars if pipeline)])


def change(user: User, subject: Pipeline | Project, *, is_starred: bool) -> None:
    """Star a pipeline or project, or remove its star; twice is the same as once."""
    target: dict[str, Any] = {"project" if isinstance(subject, Project) else "pipeline": subject}
    with transaction.atomic():
        ChangeCounter.take(1)  # pages of before are not shown any more
        if is_starred:
            Star.objects.get_or_create(user=user, **target)
        else:
            Star.objects.filter(user=user, **target).delete()
