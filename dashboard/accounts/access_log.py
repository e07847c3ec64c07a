"""The access log: record an event of signing in, of tokens, of rights or of logs."""

from collections.abc import Collection
from datetime import datetime, timedelta

import structlog
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User

from dashboard.models import AccessEvent, Run
from dashboard.models.accounts.access import AccessKind

log = structlog.get_logger(__name__)

VIEW_PERMISSION = "dashboard.view_accessevent"
LOGS_INTERVAL = timedelta(hours=1)  # an open page reads logs again and again
_RECENT_LOGS = 20  # openings by a user among which one is looked for: a statement reads no more


def record(
    kind: AccessKind,
    at: datetime,
    *,
    user: User | None = None,
    username: str = "",
    client_address: str | None = None,
    changed_by: User | None = None,
    token_name: str = "",
    detail: str = "",
) -> AccessEvent:
    """Add an event to the access log, and to the process's log; return it.

    `user` is the account concerned; `username` names one that has been deleted. `changed_by` is who
    changed its tokens or rights; None: a command, or nobody. No argument may contain a secret.
    """
    event = AccessEvent(
        occurred_at=at,
        kind=kind,
        user=user,
        username=user.username if user is not None else username,
        changed_by=changed_by.username if changed_by is not None else "",
        client_address=client_address,
        token_name=token_name,
        detail=detail,
    )
    record_all([event])
    return event


def record_logs_opened(
    user: User,
    run: Run,
    source: str,
    at: datetime,
    *,
    client_address: str | None,
    token_name: str = "",
) -> None:
    """Record that a user sees logs; call it at each reading, whether it shows any lines or not.

    It is recorded once in LOGS_INTERVAL for each user, address, token and log; again if the user
    has opened twenty others meanwhile. `source` names the log, such as “job run migrate-1”.
    """
    detail = f"{_log_name(run, source)}."
    opened = AccessEvent.objects.filter(username=user.username, kind=AccessKind.LOGS_OPENED)
    is_known = any(
        event.occurred_at > at - LOGS_INTERVAL
        and (event.detail, event.client_address, event.token_name)
        == (detail, client_address, token_name)
        for event in opened.order_by("-pk")[:_RECENT_LOGS]
    )
    if not is_known:
        record(
            AccessKind.LOGS_OPENED,
            at,
            user=user,
            client_address=client_address,
            token_name=token_name,
            detail=detail,
        )


def record_logs_opened_by_command(run: Run, source: str, shell: str, at: datetime) -> None:
    """Record that the system account `shell` has read a log by `manage.py run`."""
    detail = f"{_log_name(run, source)}, by manage.py run as {shell}."
    record(AccessKind.LOGS_OPENED, at, detail=detail)


def _log_name(run: Run, source: str) -> str:
    place = f"{run.stage.name} of {run.stage.pipeline.project.slug}/{run.stage.pipeline.slug}"
    return f"Run {run.run_id} in {place}: {source}"


def record_all(events: Collection[AccessEvent]) -> None:
    """Add events to the access log by one statement, and to the process's log by a line each."""
    for event in AccessEvent.objects.bulk_create(events):
        write = log.warning if event.kind == AccessKind.BREAK_GLASS else log.info
        write(
            "access.recorded",
            kind=event.kind,
            username=event.username,
            client_address=event.client_address,
            changed_by=event.changed_by,
            token=event.token_name,
            detail=event.detail,
        )


def may_view(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Return whether a user may view the access log: superusers, and holders of its permission."""
    return isinstance(user, User) and user.has_perm(VIEW_PERMISSION)
