"""Record changes of accounts, groups, grants and notice rules, with the state before and after.

A change is recorded in the transaction that makes it: `lock`, `snapshot`, then the change, then
`record_changes`. The access log gets a line without the states.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import Prefetch

from dashboard.accounts import access_log
from dashboard.models import AccessEvent, Grant, NoticeRule, RightsChange
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.rights_changes import SubjectKind

type State = dict[str, Any]  # in plain names


class Subject(NamedTuple):
    """An account, a group or a notice rule by its primary key, or all signed-in users."""

    kind: SubjectKind
    key: int

    @property
    def id(self) -> str:
        """The subject as text, as in addresses: “account-12”."""
        return f"{self.kind}-{self.key}"


# The key of PostgreSQL's advisory lock: any number that nothing else locks in this database.
_LOCK = 7_141_021
EVERYBODY = Subject(SubjectKind.EVERYBODY, 0)


def account(key: int) -> Subject:
    """Return an account as a subject."""
    return Subject(SubjectKind.ACCOUNT, key)


def group(key: int | None) -> Subject:
    """Return a group as a subject; None is everybody."""
    return Subject(SubjectKind.GROUP, key) if key else EVERYBODY


def notice_rule(key: int) -> Subject:
    """Return a notice rule as a subject."""
    return Subject(SubjectKind.NOTICE, key)


def lock() -> None:
    """Let no other transaction change rights until this one ends: none overwrites another's.

    SQLite writes one after another anyway.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def snapshot(*subjects: Subject) -> dict[Subject, State | None]:
    """Return the stored state of each subject; None if it does not exist."""
    users = _load_accounts({subject.key for subject in subjects if _is_account(subject)})

    def state(subject: Subject) -> State | None:
        if subject.kind == SubjectKind.NOTICE:
            return _notice_state(subject.key)
        return users.get(subject.key) if _is_account(subject) else _group_state(subject)

    return {subject: state(subject) for subject in subjects}


def version(subject: Subject) -> str:
    """Return a text that differs whenever a subject's state or its members do, for forms."""
    members = User.groups.through.objects.filter(group=subject.key) if _is_group(subject) else ()
    shown = snapshot(subject)[subject], sorted(member.user_id for member in members)
    return hashlib.sha256(msgspec.json.encode(shown, order="sorted")).hexdigest()[:16]


def record_changes(
    before: Mapping[Subject, State | None],
    detail: str,
    at: datetime,
    *,
    changed_by: User | None,
    client_address: str | None,
    even_unchanged: bool = False,
) -> list[RightsChange]:
    """Record each subject whose state differs from `before`, in both logs; return the changes.

    As many statements for any number of subjects. `detail` says what was done, as a sentence.
    `even_unchanged` is for what no state shows: a new password.
    """
    after = snapshot(*before)
    changes = RightsChange.objects.bulk_create(
        RightsChange(
            occurred_at=at,
            changed_by=changed_by.username if changed_by is not None else "",
            client_address=client_address,
            subject_kind=subject.kind,
            subject_key=subject.key,
            subject=(after[subject] or before[subject] or {}).get("name", ""),
            detail=detail,
            before=before[subject],
            after=after[subject],
        )
        for subject in sorted(before)
        if even_unchanged or before[subject] != after[subject]
    )
    access_log.record_all([_access_event(change) for change in changes])
    return changes


def _is_account(subject: Subject) -> bool:
    return subject.kind == SubjectKind.ACCOUNT


def _is_group(subject: Subject) -> bool:
    return subject.kind == SubjectKind.GROUP


def _load_accounts(keys: Collection[int]) -> dict[int, State]:
    with_names = Permission.objects.select_related("content_type")
    accounts = User.objects.filter(pk__in=keys).select_related("proxy_account")
    users = accounts.prefetch_related("groups", Prefetch("user_permissions", with_names))
    return {
        user.pk: {
            "name": user.username,
            "active": user.is_active,
            "superuser": user.is_superuser,
            "proxy": hasattr(user, "proxy_account"),  # whether the proxy signs it in
            "groups": sorted(group.name for group in user.groups.all()),
            "permissions": _names(user.user_permissions.all()),
        }
        for user in users
    }


def _group_state(subject: Subject) -> State | None:
    if subject == EVERYBODY:
        return {"grants": _grants(None)}
    found = Group.objects.filter(pk=subject.key).first()
    if found is None:
        return None
    return {
        "name": found.name,
        "permissions": _names(found.permissions.select_related("content_type")),
        "grants": _grants(found.pk),
    }


def _notice_state(key: int) -> State | None:
    rule = NoticeRule.objects.select_related("project").filter(pk=key).first()
    if rule is None:
        return None
    return {
        "name": rule.channel,
        "events": sorted(rule.events),
        "project": rule.project.slug if rule.project else "",
        "stage": rule.stage,
        "quiet": rule.quiet_hours,
    }


def _names(permissions: Iterable[Permission]) -> list[str]:
    return sorted(
        f"{permission.content_type.app_label}.{permission.codename}" for permission in permissions
    )


def _grants(group_key: int | None) -> list[dict[str, str]]:
    """Return the grants of a group; an empty project or stage means all."""
    grants = Grant.objects.filter(group=group_key).values_list("action", "project__slug", "stage")
    rows = sorted((action, slug or "", stage) for action, slug, stage in grants)
    return [dict(zip(("action", "project", "stage"), row, strict=True)) for row in rows]


def _access_event(change: RightsChange) -> AccessEvent:
    is_account = change.subject_kind == SubjectKind.ACCOUNT
    return AccessEvent(
        occurred_at=change.occurred_at,
        kind=AccessKind.RIGHTS_CHANGED,
        user_id=change.subject_key if is_account and change.after is not None else None,
        username=change.subject if is_account else "",
        changed_by=change.changed_by,
        client_address=change.client_address,
        detail=change.detail if is_account else f"{change.detail} {_label(change)}",
    )


def _label(change: RightsChange) -> str:
    if change.subject_kind == SubjectKind.EVERYBODY:
        return "All signed-in users."
    return f"{SubjectKind(change.subject_kind).label} “{change.subject}”."
