"""A round: store the messages on what there is to tell that has not been told.

Messages are sent later (delivery.py), each stored in one transaction with its notice: whatever
breaks, all is told, and nothing twice, even if two processes lead for a moment.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone

from dashboard.models import EndRequest, Notice, NoticeRule
from dashboard.models.notices import DASHBOARD_EVENTS, NoticeEvent
from dashboard.notices import causes, default_rule, texts
from dashboard.notices.causes import Cause
from dashboard.sync.reports import sync_state
from dashboard.sync.reports.sync_state import SyncState

log = structlog.get_logger(__name__)

INTERVAL = 5.0  # seconds
REPEAT_AFTER = timedelta(minutes=30)  # what comes and goes is told once in this time
PATIENCE = timedelta(minutes=5)  # of the events of the dashboard itself


class Round:
    """The rounds of a process, which remember since when something is wrong with the dashboard."""

    def __init__(self) -> None:
        self._wrong_since: dict[NoticeEvent, datetime] = {}

    def tell(self, now: datetime) -> None:
        """Store the messages that are due; takes few statements while nothing happens."""
        channels = list(settings.NOTIFY_URLS)
        if not channels:
            return
        rules = list(NoticeRule.objects.filter(channel__in=channels))
        if not rules:
            default_rule.create(now)  # told from the next round on
        told = Notice.objects.filter(channel__in=channels)
        still_open = told.filter(over_at=None).select_related("run__stage__pipeline__project")
        open_notices = list(still_open.defer("run__steps", "run__description"))
        runs = {notice.run.pk: notice.run for notice in open_notices if notice.run}
        runs |= {run.pk: run for run in causes.load_runs(now)}
        sync = sync_state.load(now)
        found = [*causes.of_runs(runs.values(), sync), *self._dashboard_causes(rules, sync)]
        keys = {cause.key for cause in found}
        ended = {notice.cause: notice.run for notice in open_notices if notice.cause not in keys}
        found += [Cause(key, run, {}, goes_on=False) for key, run in ended.items()]
        requests = _requests(found)
        keys = {cause.key for cause in found if cause.events} | {key for _, key in requests}
        notices = {(notice.channel, notice.cause): notice for notice in open_notices}
        if keys:
            notices |= {(row.channel, row.cause): row for row in told.filter(cause__in=keys)}
        for cause in found:
            for channel in channels:
                try:
                    _tell(
                        cause,
                        channel,
                        [rule for rule in rules if rule.channel == channel],
                        notices.get((channel, cause.key)),
                        requests.get((channel, cause.key), []),
                        now,
                    )
                except (DatabaseError, InterfaceError):
                    raise
                except Exception:  # a defect in one text: it must not stop the others
                    log.exception("notice.crashed", cause=cause.key)

    def _dashboard_causes(self, rules: Iterable[NoticeRule], sync: SyncState) -> list[Cause]:
        wanted = {event for rule in rules for event in rule.events}.intersection(DASHBOARD_EVENTS)
        wrong = causes.of_dashboard(sync, wanted)
        self._wrong_since = {
            event: since or self._wrong_since.get(event, sync.now) for event, since in wrong.items()
        }
        return [
            Cause(event, None, {event: None} if sync.now - since >= PATIENCE else {}, goes_on=True)
            for event, since in self._wrong_since.items()
        ]


def _requests(found: Iterable[Cause]) -> dict[tuple[str, str], list[EndRequest]]:
    """Return the requests for the ends of these causes' runs, by channel and cause."""
    ended = {
        cause.run.pk
        for cause in found
        if cause.run and cause.key.startswith(causes.RUN_PREFIX)
        if not cause.run.is_tracked and not cause.goes_on
    }
    requests: dict[tuple[str, str], list[EndRequest]] = {}
    if ended:
        for request in EndRequest.objects.filter(run__in=ended).select_related("user"):
            key = f"{causes.RUN_PREFIX}{request.run_id}"
            requests.setdefault((request.channel, key), []).append(request)
    return requests


def _tell(
    cause: Cause,
    channel: str,
    rules: Iterable[NoticeRule],
    notice: Notice | None,
    requests: Collection[EndRequest],
    now: datetime,
) -> None:
    """Store a message about a cause if the channel has to be told something new.

    `rules` are those of the channel; `notice` is what it has been told of the cause.
    """
    told: dict[str, str] = notice.told if notice is not None else {}
    was_open = notice is not None and notice.over_at is None
    is_over = was_open and not cause.goes_on
    # The dashboard itself is in no place.
    rules = [rule for rule in rules if cause.run is None or rule.covers(cause.run.stage)]
    audible = [rule for rule in rules if not _is_quiet(rule, now)]
    wanted = _wanted_events(cause, audible)
    if requests:
        wanted.add(NoticeEvent.RUN_ENDED)
    if is_over:
        tellers = [rule for rule in rules if told.keys() & rule.events]
        if tellers and not wanted and not any(rule in audible for rule in tellers):
            return  # until the quiet hours end
        news = wanted | {NoticeEvent(event) for event in told} if wanted or tellers else set()
    else:
        news = {event for event in wanted if _is_new(event, cause, told, was_open, now)}
        if not news:
            return
    message = None
    if news:
        event = max(news, key=_gravity)
        if cause.run is None:
            message = texts.of_dashboard(event, now, is_over=is_over)
        else:
            names = sorted(request.user.get_username() for request in requests)
            message = texts.of_run(cause.run, event, now, is_over=is_over, requesters=names)
        message.channel = channel
    with transaction.atomic():
        is_first = _store_notice(cause, channel, notice, wanted, now)
        if message is not None and is_first:  # else another process has told it
            message.save()
            EndRequest.objects.filter(pk__in=[request.pk for request in requests]).delete()


def _store_notice(
    cause: Cause, channel: str, notice: Notice | None, events: Iterable[NoticeEvent], now: datetime
) -> bool:
    """Store that a channel is told of these events, or of the end; return False if it was."""
    told = dict.fromkeys(events, now.isoformat())
    fields = {"told_at": now, "over_at": None if cause.goes_on else now}
    if notice is None:
        defaults = {"run": cause.run, "told": told, **fields}
        key = {"channel": channel, "cause": cause.key}
        return Notice.objects.get_or_create(**key, defaults=defaults)[1]
    unchanged = Notice.objects.filter(pk=notice.pk, told_at=notice.told_at, over_at=notice.over_at)
    return unchanged.update(told=notice.told | told, **fields) > 0


def _wanted_events(cause: Cause, rules: Iterable[NoticeRule]) -> set[NoticeEvent]:
    """Return the events of a cause that one of these rules tells."""
    wanted = {
        event
        for rule in rules
        if cause.ended_at is None or cause.ended_at > rule.created_at
        for event in cause.events
        if event in rule.events
    }
    if NoticeEvent.OVERDUE in wanted:
        wanted.discard(NoticeEvent.APPROVAL)  # the text says so, too
    return wanted


def _is_new(
    event: NoticeEvent, cause: Cause, told: Mapping[str, str], was_open: bool, now: datetime
) -> bool:
    """Return whether an event has not been told yet, or long ago and has come again since."""
    if event not in told:
        return True
    told_at, since = datetime.fromisoformat(told[event]), cause.events.get(event)
    has_come_again = since > told_at if since is not None else not was_open
    return has_come_again and told_at <= now - REPEAT_AFTER


def _gravity(event: NoticeEvent) -> int:
    # That it was asked for says nothing of the run.
    return -1 if event == NoticeEvent.RUN_ENDED else list(NoticeEvent).index(event)


def _is_quiet(rule: NoticeRule, now: datetime) -> bool:
    start, end = rule.quiet_from, rule.quiet_until
    if start is None or end is None:
        return False
    time = timezone.localtime(now).time()
    return start <= time < end if start <= end else time >= start or time < end
