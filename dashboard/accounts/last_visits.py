"""Up to when a user has seen what happened; it moves only when they say so, and never back."""

from datetime import datetime

from django.contrib.auth.models import User

from dashboard.models import LastVisit


def load(user: User, version: int, now: datetime) -> LastVisit:
    """Return the last visit of a user; at the first one, `now` with the latest change `version`."""
    start = {"version": version, "at": now}
    return LastVisit.objects.get_or_create(user=user, defaults=start)[0]


def record(user: User, version: int, at: datetime) -> None:
    """Record that a user has seen all until then, unless they have seen more already."""
    load(user, version, at)
    LastVisit.objects.filter(user=user, at__lt=at).update(version=version, at=at)
