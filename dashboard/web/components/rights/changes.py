"""Changes of rights and of notice rules on a page: load a page of them, and compare the states."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import Q
from django.utils.translation import gettext_lazy

from dashboard.accounts.rights_changes import State, Subject
from dashboard.models import RightsChange
from dashboard.models.accounts.rights_changes import SubjectKind
from dashboard.models.notices import NoticeEvent
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.components.lists import record_pages
from dashboard.web.components.lists.record_pages import RecordFilter, RecordPage
from dashboard.web.components.rights import texts

PER_PAGE = 50
RECENT_CHANGES = 10
_text = MessageTable(  # of the parts of a state
    {
        "active": gettext_lazy("active"),
        "superuser": gettext_lazy("superuser"),
        "proxy": gettext_lazy("signed in by the proxy"),
        "name": gettext_lazy("name “%(name)s”"),
        "group": gettext_lazy("group %(group)s"),
        "permission": gettext_lazy("Django permission %(name)s"),
        "channel": gettext_lazy("channel “%(name)s”"),
        "event": gettext_lazy("tells of: %(event)s"),
        "quiet": gettext_lazy("quiet hours %(hours)s"),
    }
)


def load_page(change_filter: RecordFilter, per_page: int = PER_PAGE) -> RecordPage[dict[str, Any]]:
    """Return the page of changes that a filter selects: of each what it added and removed."""
    return record_pages.load_page(change_filter, RightsChange.objects.all(), _row, per_page)


def recent(subject: Subject) -> dict[str, Any]:
    """Return the latest changes of a subject, for components/rights.html#recent-changes."""
    of_subject = Q(subject_kind=subject.kind, subject_key=subject.key)
    page = load_page(RecordFilter(condition=of_subject), RECENT_CHANGES)
    return {"changes": page, "subject_id": subject.id}


def _row(change: RightsChange) -> dict[str, Any]:
    before, after = set(_parts(change.before)), set(_parts(change.after))
    kind = SubjectKind(change.subject_kind)
    return {
        "change": change,
        "label": kind.label,
        "added": sorted(after - before, key=str),
        "removed": sorted(before - after, key=str),
        "subject_id": Subject(kind, change.subject_key).id,
    }


def _parts(state: State | None) -> Iterator[Message]:
    """Yield what a state consists of."""
    values: Mapping[str, Any] = state or {}
    yield from (_text(flag) for flag in ("active", "superuser", "proxy") if values.get(flag))
    if "events" in values:
        yield from _rule_parts(values)
    elif values.get("name"):
        yield _text("name", name=values["name"])
    for name in values.get("groups", ()):
        yield _text("group", group=texts.group_text(name))
    for name in values.get("permissions", ()):
        yield _text("permission", name=name)
    for grant in values.get("grants", ()):
        projects = texts.project_text(grant["project"])
        yield texts.grant_text(grant["action"], grant["stage"], projects)


def _rule_parts(rule: Mapping[str, Any]) -> Iterator[Message]:
    yield _text("channel", name=rule["name"])
    yield texts.place_text(rule["stage"], rule["project"])
    labels = dict(NoticeEvent.choices)
    for event in rule["events"]:
        yield _text("event", event=str(labels.get(event, event)))
    if rule["quiet"]:
        yield _text("quiet", hours=rule["quiet"])
