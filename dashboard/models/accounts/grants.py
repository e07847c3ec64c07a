"""Grants: permission for a group to view or abort runs, or to see logs, in a place or in all."""

from django.contrib.auth.models import Group
from django.db import models
from django.utils.translation import gettext as _

from dashboard.models.catalog import Project, StageName


class Action(models.TextChoices):
    """What a grant allows; each includes those before it."""

    VIEW = "view"
    LOGS = "logs"  # see the logs of what runs have started
    ABORT = "abort"


RANKS = {action: rank for rank, action in enumerate(["", *Action.values])}  # "": nothing


class Grant(models.Model):
    """A group's permission. An empty group, project or stage means all of them."""

    # Empty: all signed-in users.
    group = models.ForeignKey(Group, models.CASCADE, null=True, blank=True, related_name="grants")
    # Empty: all projects.
    project = models.ForeignKey(Project, models.CASCADE, null=True, blank=True)
    stage = models.CharField(max_length=20, choices=StageName, blank=True)  # Empty: all stages.
    action = models.CharField(max_length=10, choices=Action)

    def __str__(self) -> str:
        who = self.group.name if self.group else _("all signed-in users")
        location = f"{self.project or _('all projects')} / {self.stage or _('all stages')}"
        return f"{who}: {self.action} {location}"
