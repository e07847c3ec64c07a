"""The grants of a group, and its permissions of Django, as texts."""

from django.contrib.auth.models import Group

from dashboard.models import Grant
from dashboard.texts.rich_text import Message
from dashboard.web.components.rights import texts


def texts_by_key(group: Group | None) -> list[tuple[int, Message]]:
    """Return the key and the text of each grant of a group; None is everybody."""
    grants = Grant.objects.filter(group=group).select_related("project")
    ordered = grants.order_by("project__slug", "stage", "action", "pk")
    return [(grant.pk, grant_text(grant)) for grant in ordered]


def grant_text(grant: Grant) -> Message:
    """Return a grant without its group."""
    projects = texts.project_text(str(grant.project) if grant.project else "")
    return texts.grant_text(grant.action, grant.stage, projects)


def django_permissions(group: Group) -> str:
    """Return the names of the permissions of Django that a group gives, or an empty text."""
    names = group.permissions.values_list("content_type__app_label", "codename")
    return ", ".join(sorted(f"{app}.{name}" for app, name in names))
