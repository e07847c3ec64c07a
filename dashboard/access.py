"""Who may abort: asked by every way in, answered here only."""

from dataclasses import dataclass
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, Permission, User
from django.db.models.signals import post_migrate

from dashboard.models import Stage

RELEASE_MANAGERS = "Release managers"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a thing is allowed and, where it is not, why, and who can."""

    allowed: bool
    why_not: str = ""


def may_abort(user: AbstractBaseUser | AnonymousUser, stage: Stage | None = None) -> Verdict:
    """Say whether `user` may abort runs of `stage` (None: of any)."""
    if settings.READ_ONLY:
        return Verdict(False, "This dashboard is switched to read-only.")
    if not settings.ABORTS_ENABLED:
        return Verdict(False, "Aborting is switched off on this dashboard.")
    if isinstance(user, User) and user.is_active and user.has_perm("dashboard.abort_run"):
        return Verdict(True)
    return Verdict(False, f"Only members of the group “{RELEASE_MANAGERS}” may abort runs.")


def keep_group(**_: Any) -> None:
    """Make the group that may abort, with its right, where it does not exist yet."""
    group, created = Group.objects.get_or_create(name=RELEASE_MANAGERS)
    if created:
        group.permissions.add(
            Permission.objects.get(content_type__app_label="dashboard", codename="abort_run")
        )


def keep_group_after_migrations(of: AppConfig) -> None:
    """Run `keep_group` after each migration of this application."""
    post_migrate.connect(keep_group, sender=of, dispatch_uid="dashboard.access.keep_group")
