"""Last visits: up to when each account has seen what happened."""

from django.conf import settings
from django.db import models


class LastVisit(models.Model):
    """What a user has seen: all that had happened at a time, up to a visible change."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True)
    at = models.DateTimeField()
    version = models.BigIntegerField()  # Number of the latest visible change at that time.
