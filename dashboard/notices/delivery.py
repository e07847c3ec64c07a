"""Send stored messages until they have arrived, for an hour.

A message is claimed first, in a transaction of its own. If the process then dies, the claim ends
after LEASE and another attempt follows: the message may arrive twice, but is not lost.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic

import structlog
from django.conf import settings
from django.db import transaction

from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import NoticeMessage
from dashboard.models.counters import CounterName, increment, store
from dashboard.models.notices import MessageQuerySet
from dashboard.notices import channels, webhook
from dashboard.notices.webhook import SendError

log = structlog.get_logger(__name__)

INTERVAL = 2.0  # seconds between two looks for messages
CLEANUP_INTERVAL = 60.0  # seconds between two looks for removed channels
LEASE = timedelta(minutes=2)  # of a claim; longer than any attempt
FIRST_PAUSE, MAX_PAUSE = timedelta(seconds=15), timedelta(minutes=10)  # between attempts
GIVE_UP_AFTER = timedelta(hours=1)
MAX_SINGLE = 5  # more that are due are sent as one
MAX_LISTED = 20  # in one, each with 150 characters: Teams takes 28 KB; the others are counted
MAX_TOGETHER = 100


class Delivery:
    """A chore of the sync worker: sends what is due to one channel, so that none delays another."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._next_at = 0.0

    async def __call__(self, _: object) -> None:
        """Send all that is due, until an attempt fails."""
        if monotonic() < self._next_at:
            return
        self._next_at = monotonic() + INTERVAL
        while messages := await run_in_db_thread(claim, self.channel, now()):
            try:
                await channels.send(combine(messages))
            except SendError as error:
                await run_in_db_thread(store_failure, messages, str(error), now())
                return
            await run_in_db_thread(store_sent, messages, now())


@transaction.atomic
def claim(channel: str, at: datetime) -> list[NoticeMessage]:
    """Claim what to send next, and return it; empty if nothing is due.

    Several messages go out as one, except to webhooks. Those given up are not among them.
    """
    due = list(NoticeMessage.objects.due(at).filter(channel=channel)[:MAX_TOGETHER])
    # Only after an attempt: nothing is given up because no process was there for an hour.
    old = [message for message in due if message.attempts and _is_too_late(message, at)]
    if old:
        store_failure(old, "The process that sent it has stopped.", at)
        due = [message for message in due if message not in old]
    if len(due) <= MAX_SINGLE or webhook.is_webhook(settings.NOTIFY_URLS.get(channel, "")):
        due = due[:1]
    claimed = {"claimed_at": at, "next_try_at": at + LEASE}
    claims = []
    for message in due:
        row = NoticeMessage.objects.filter(pk=message.pk, next_try_at=message.next_try_at)
        message.attempts += 1
        if row.update(attempts=message.attempts, **claimed):  # else another process has
            claims.append(message)
    return claims


def combine(messages: Sequence[NoticeMessage]) -> NoticeMessage:
    """Return one message that lists several, or the only one."""
    first = messages[0]
    if len(messages) == 1:
        return first
    lines = [f"{message.title[:150]}\n{message.url}" for message in messages[:MAX_LISTED]]
    if len(messages) > MAX_LISTED:
        lines.append(f"And {len(messages) - MAX_LISTED} more.")
    return NoticeMessage(
        channel=first.channel,
        title=f"{len(messages)} notices",
        body="\n\n".join(lines),
        created_at=first.created_at,
    )


def store_sent(messages: Sequence[NoticeMessage], at: datetime) -> None:
    """Record that messages have arrived."""
    channel = messages[0].channel
    with transaction.atomic():
        _rows(messages).update(sent_at=at, next_try_at=None, error="")
        store([increment(CounterName.NOTICES_SENT, channel, by=len(messages))])
    log.info("notice.sent", channel=channel, count=len(messages))


def store_failure(messages: Sequence[NoticeMessage], error: str, at: datetime) -> None:
    """Record a failed attempt: each message is sent again after a pause, or given up."""
    store([increment(CounterName.NOTICES_FAILED, messages[0].channel)])
    for message in messages:
        pause = min(FIRST_PAUSE * 2 ** (message.attempts - 1), MAX_PAUSE)
        # Somebody waits for the outcome of a test, which is one without an event.
        is_last = not message.event or _is_too_late(message, at + pause)
        if is_last:
            _give_up(message, error, at)
        else:
            _rows([message]).update(next_try_at=at + pause, claimed_at=at, error=error)
            fields = {"channel": message.channel, "attempts": message.attempts}
            log.warning("notice.failed", **fields, error=error)


def _give_up(message: NoticeMessage, error: str, at: datetime) -> None:
    _rows([message]).update(next_try_at=None, claimed_at=at, error=error)
    store([increment(CounterName.SYSTEM_ERRORS, "notices", "given_up")])
    fields = {"channel": message.channel, "attempts": message.attempts}
    log.error("notice.given_up", **fields, error=error, title=message.title)


def _is_too_late(message: NoticeMessage, at: datetime) -> bool:
    return at - message.created_at > GIVE_UP_AFTER


def _rows(messages: Sequence[NoticeMessage]) -> MessageQuerySet:
    return NoticeMessage.objects.filter(pk__in=[message.pk for message in messages])


def give_up_removed(at: datetime) -> None:
    """Give up what waits for channels that are not in NOTIFY_URLS any more."""
    for message in NoticeMessage.objects.due(at).exclude(channel__in=settings.NOTIFY_URLS):
        _give_up(message, "The channel is not in NOTIFY_URLS any more.", at)
