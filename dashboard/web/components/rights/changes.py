"""Changes of rights on a page: parse the filter, load a page of changes, and compare the states."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.utils.translation import gettext_lazy

from dashboard.accounts.rights_changes import State, Subject
from dashboard.models import RightsChange
from dashboard.models.accounts.rights_changes import SubjectKind
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.components.lists import record_pages
from dashboard.web.components.lists.record_pages import MAX_QUOTED, RecordFilter, RecordPage
from dashboard.web.components.rights import texts
from dashboard.web.http import keys

PER_PAGE = 50
RECENT_CHANGES = 10
PARAMETERS = ("name", "subject")
MAX_NAME_LENGTH = 150  # of Django's user names and groups
_text = MessageTable(
    {
        "unknown_subject": gettext_lazy("Unknown subject “%(subject)s” ignored."),
        # Parts of a state.
        "active": gettext_lazy("active"),
        "staff": gettext_lazy("staff"),
        "superuser": gettext_lazy("superuser"),
        "proxy": gettext_lazy("signed in by the proxy"),
        "name": gettext_lazy("name “%(name)s”"),
        "group": gettext_lazy("group %(group)s"),
        "permission": gettext_lazy("Django permission %(name)s"),
    }
)


@dataclass
class ChangeFilter(RecordFilter):
    """The filter in a query string."""

    name: str = ""
    subject: Subject | None = None


def parse(query: Mapping[str, str]) -> ChangeFilter:
    """Return the filter in a query string; ignore invalid parameters and add warnings."""
    change_filter = ChangeFilter()
    values = change_filter.read(query, PARAMETERS)
    if name := values["name"][:MAX_NAME_LENGTH]:
        change_filter.name = change_filter.parameters["name"] = name
    if subject := _parse_subject(values["subject"]):
        change_filter.subject = subject
        change_filter.parameters["subject"] = subject.id
    elif values["subject"]:
        change_filter.warnings.append(
            _text("unknown_subject", subject=values["subject"][:MAX_QUOTED])
        )
    return change_filter


def _parse_subject(text: str) -> Subject | None:
    """Return the subject with this `Subject.id`, or None."""
    kind, _dash, digits = text.partition("-")
    key = keys.parse_pk(digits)
    return (
        Subject(SubjectKind(kind), key) if kind in SubjectKind.values and key is not None else None
    )


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """A change as pages show it: what was added to the state and taken from it."""

    change: RightsChange
    label: str
    added: list[Message]
    removed: list[Message]
    subject_id: str


def load_changes(
    change_filter: ChangeFilter, before_pk: int | None, limit: int
) -> list[RightsChange]:
    """Return up to `limit` matching changes, newest first, with keys below `before_pk` if given."""
    changes = RightsChange.objects.order_by("-pk")
    if subject := change_filter.subject:
        changes = changes.filter(subject_kind=subject.kind, subject_key=subject.key)
    if change_filter.name:
        changes = changes.filter(subject=change_filter.name)
    if before_pk is not None:
        changes = changes.filter(pk__lt=before_pk)
    return list(changes[:limit])


def load_page(change_filter: ChangeFilter, per_page: int = PER_PAGE) -> RecordPage[ChangeRow]:
    """Return the page of changes that a filter selects."""
    load = partial(load_changes, change_filter)
    return record_pages.load_page(change_filter, load, _row, per_page)


def recent(subject: Subject) -> dict[str, Any]:
    """Return the latest changes of a subject, for components/rights.html#recent-changes."""
    page = load_page(ChangeFilter(subject=subject), RECENT_CHANGES)
    return {"changes": page, "subject_id": subject.id}


def _row(change: RightsChange) -> ChangeRow:
    before, after = set(_parts(change.before)), set(_parts(change.after))
    kind = SubjectKind(change.subject_kind)
    return ChangeRow(
        change=change,
        label=str(kind.label),
        added=sorted(after - before, key=str),
        removed=sorted(before - after, key=str),
        subject_id=Subject(kind, change.subject_key).id,
    )


def _parts(state: State | None) -> Iterator[Message]:
    """Yield what a state consists of."""
    values: Mapping[str, Any] = state or {}
    yield from (
        _text(flag) for flag in ("active", "staff", "superuser", "proxy") if values.get(flag)
    )
    if values.get("name"):
        yield _text("name", name=values["name"])
    for name in values.get("groups", ()):
        yield _text("group", group=texts.group_text(name))
    for name in values.get("permissions", ()):
        yield _text("permission", name=name)
    for grant in values.get("grants", ()):
        projects = texts.project_text(grant["project"])
        yield texts.grant_text(grant["action"], grant["stage"], projects)
