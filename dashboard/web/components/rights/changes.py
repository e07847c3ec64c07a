"""Changes of rights on a page: parse the filter, load a page of changes, and compare the states."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.utils.translation import gettext as _

from dashboard.accounts.administration import rights
from dashboard.accounts.administration.rights import State, Subject
from dashboard.models import RightsChange
from dashboard.models.accounts.rights_changes import SubjectKind
from dashboard.web.components.rights import texts
from dashboard.web.http import keys

PER_PAGE = 50
PARAMETERS = ("name", "subject", "before")
MAX_NAME_LENGTH = 150  # of Django's user names and groups


@dataclass
class ChangeFilter:
    """The filter in a query string."""

    name: str = ""
    subject: Subject | None = None
    before_pk: int | None = None
    warnings: list[str] = field(default_factory=list)  # about ignored parameters, for the user

    @property
    def parameters(self) -> dict[str, str]:
        """The valid parameters, without the position in the list."""
        values = {"name": self.name, "subject": self.subject.id if self.subject else ""}
        return {name: value for name, value in values.items() if value}

    @property
    def query_string(self) -> str:
        """The filter as a query string, without the position in the list."""
        return urlencode(self.parameters)


def parse(query: Mapping[str, str]) -> ChangeFilter:
    """Return the filter in a query string; ignore invalid parameters and add warnings."""
    values = {name: query.get(name, "").replace("\0", "").strip() for name in PARAMETERS}
    change_filter = ChangeFilter(
        name=values["name"][:MAX_NAME_LENGTH],
        subject=_parse_subject(values["subject"]),
        before_pk=keys.parse_pk(values["before"]),
    )
    change_filter.warnings += [
        _("Unknown filter “%(name)s” ignored.") % {"name": name[:80]}
        for name in query
        if name not in PARAMETERS
    ]
    if values["subject"] and change_filter.subject is None:
        text = _("Unknown subject “%(subject)s” ignored.")
        change_filter.warnings.append(text % {"subject": values["subject"][:80]})
    if values["before"] and change_filter.before_pk is None:
        text = _("Invalid position “%(before)s”; showing newest changes.")
        change_filter.warnings.append(text % {"before": values["before"][:80]})
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
    added: list[str]
    removed: list[str]
    subject_id: str


@dataclass(frozen=True, slots=True)
class PageOfChanges:
    """One page of changes, newest first; `older_url` is empty on the last."""

    rows: list[ChangeRow]
    older_url: str


def load_changes(
    change_filter: ChangeFilter, before_pk: int | None, limit: int
) -> list[RightsChange]:
    """Return up to `limit` matching changes, newest first, with keys below `before_pk` if given."""
    changes = rights.find_changes(
        subject=change_filter.subject, name=change_filter.name, before_pk=before_pk
    )
    return list(changes[:limit])


def load_page(change_filter: ChangeFilter, per_page: int = PER_PAGE) -> PageOfChanges:
    """Return the page of changes that a filter selects."""
    changes = load_changes(change_filter, change_filter.before_pk, per_page + 1)
    shown = changes[:per_page]
    older = {**change_filter.parameters, "before": str(shown[-1].pk)} if shown else {}
    return PageOfChanges(
        rows=[_row(change) for change in shown],
        older_url=f"?{urlencode(older)}" if len(changes) > per_page else "",
    )


def _row(change: RightsChange) -> ChangeRow:
    before, after = set(_parts(change.before)), set(_parts(change.after))
    kind = SubjectKind(change.subject_kind)
    return ChangeRow(
        change=change,
        label=str(kind.label),
        added=sorted(after - before),
        removed=sorted(before - after),
        subject_id=Subject(kind, change.subject_key).id,
    )


def _parts(state: State | None) -> Iterator[str]:
    """Yield what a state consists of, each as a text."""
    values: Mapping[str, Any] = state or {}
    labels = {
        "active": _("active"),
        "staff": _("staff"),
        "superuser": _("superuser"),
        "proxy": _("signed in by the proxy"),
    }
    yield from (label for name, label in labels.items() if values.get(name))
    if values.get("name"):
        yield _("name “%(name)s”") % {"name": values["name"]}
    for name in values.get("groups", ()):
        yield _("group %(group)s") % {"group": texts.group_text(name)}
    for name in values.get("permissions", ()):
        yield _("Django permission %(name)s") % {"name": name}
    for grant in values.get("grants", ()):
        projects = texts.project_text(grant["project"])
        yield texts.grant_text(grant["action"], grant["stage"], projects)
