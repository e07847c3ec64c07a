"""Who may do what where: a right given to a group, for a project and a stage or for all of them."""

from django.contrib.auth.models import Group
from django.db import models
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.models.catalog import Project, StageName


class Action(models.TextChoices):
    VIEW = "view"
    ABORT = "abort"  # and see


class Grant(models.Model):
    """A right of a group. Whatever is left empty means all of its kind."""

    group = models.ForeignKey(
        Group,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="grants",
        help_text=gettext_lazy("Empty: everybody who is signed in."),
    )
    project = models.ForeignKey(
        Project,
        models.CASCADE,
        null=True,
        blank=True,
        help_text=gettext_lazy("Empty: all projects."),
    )
    stage = models.CharField(
        max_length=20, choices=StageName, blank=True, help_text=gettext_lazy("Empty: all stages.")
    )
    action = models.CharField(max_length=10, choices=Action)

    def __str__(self) -> str:
        who = self.group.name if self.group else _("everybody")
        location = f"{self.project or _('all projects')} / {self.stage or _('all stages')}"
        return f"{who}: {self.action} {location}"
