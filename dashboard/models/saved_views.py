"""Saved views: named filters for stage pages."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from dashboard.db.prepared import Parameter


class SavedViewQuerySet(models.QuerySet["SavedView"]):
    def visible_to(self, user_id: int | Parameter) -> "SavedViewQuerySet":
        """A user's own views and those that others share, by name."""
        visible = self.filter(Q(owner=user_id) | Q(shared=True))
        return visible.select_related("owner").order_by("name", "pk")


class SavedView(models.Model):
    """A named filter that works on every stage page."""

    NAME_LENGTH = 60
    QUERY_LENGTH = 4000

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="saved_views")
    name = models.CharField(max_length=NAME_LENGTH)
    # Query string of the stage page, without the position in the list.
    query = models.CharField(max_length=QUERY_LENGTH)
    shared = models.BooleanField(default=False)  # Visible to all signed-in users.

    objects = SavedViewQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["owner", "name"], name="saved_view_unique_name")
        ]

    def __str__(self) -> str:
        return self.name


class DefaultView(models.Model):
    """The view that stage pages open with for one user."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="default_view"
    )
    view = models.ForeignKey(SavedView, models.CASCADE, related_name="defaults")

    def __str__(self) -> str:
        return str(self.view)
