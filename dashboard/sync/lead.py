"""The lead: one of all processes reads from Northflank; the others stand by.

The lead is one row. Its holder renews it; when the holder dies or hangs, another process takes the
lead over. A process that was paused, and goes on later, does no harm: it sends nothing once its
time is over by its own steady clock, and each of its writes is in a transaction that first compares
the row's epoch and keeps it from changing.

Schedules, and when data was read, are times of the database's clock. If that clock is set back,
nobody reads until it has caught up: the row's last renewal is later than the clock.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from django.db import connection, transaction

from dashboard.db.threads import run_in_db_thread
from dashboard.models import Lead

LEASE = timedelta(seconds=15)  # the time after its last renewal in which nobody else takes the lead
SILENCE = timedelta(seconds=30)  # after which no process is left that could take it over
# After which a process that leads, but fails or waits in each round, counts as dead.
MAX_ROUND = timedelta(minutes=1)
# Clocks of processes differ by less; a clock set back by less falsifies nothing.
CLOCK_TOLERANCE = timedelta(seconds=5)
# It goes on while the machine is suspended; on Linux time.monotonic() does not.
_STEADY_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LeadLost(Exception):
    """Another process leads, or may by now."""


@dataclass(slots=True)
class Term:
    """The lead of this process, until it is lost."""

    epoch: int
    ends_at: float  # by the steady clock, unless it is renewed

    def verify(self) -> None:
        """Raise LeadLost if another process may lead by now; call it just before a request."""
        if time.clock_gettime(_STEADY_CLOCK) >= self.ends_at:
            raise LeadLost

    async def write[**P, T](self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` on a database thread, in a transaction during which nobody else leads.

        Raise LeadLost, without doing it, if another process leads.
        """
        return await run_in_db_thread(self._write, partial(work, *args, **kwargs))

    def _write[T](self, work: Callable[[], T]) -> T:
        with transaction.atomic():
            if not _holds_epoch(self.epoch):
                self.ends_at = 0.0
                raise LeadLost
            return work()


def _holds_epoch(epoch: int) -> bool:
    # On PostgreSQL this lock lets the row be renewed, but not be taken. SQLite has one writer.
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT epoch FROM dashboard_lead WHERE id = 1 FOR KEY SHARE"
            if connection.vendor == "postgresql"
            else "SELECT epoch FROM dashboard_lead WHERE id = 1"
        )
        rows: list[tuple[int]] = cursor.fetchall()
    return rows == [(epoch,)]


def new_holder() -> str:
    """Return a name for this process that no other has, not even one in a copy of its container."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def take(holder: str, now: datetime) -> Term | None:
    """Take the lead if nobody has it; return None if somebody has, or while the clock is behind."""
    began_at = time.clock_gettime(_STEADY_CLOCK)
    row = Lead.objects.filter(pk=1).first() or Lead.objects.get_or_create(pk=1)[0]
    if not _is_free(row, now):
        return None
    with transaction.atomic():
        row = Lead.objects.select_for_update().get(pk=1)  # waits for the writes of the last holder
        if not _is_free(row, now):
            return None
        row.holder, row.epoch, row.taken_at = holder, row.epoch + 1, now
        row.renewed_at = row.round_ended_at = now
        row.save()
    return Term(row.epoch, began_at + LEASE.total_seconds())


def _is_free(row: Lead, now: datetime) -> bool:
    if row.renewed_at is None:
        return True
    since = now - row.renewed_at
    return since > (LEASE if row.holder else -CLOCK_TOLERANCE)


def renew(term: Term, now: datetime, round_ended_at: datetime) -> timedelta:
    """Renew the lead, and return by how much the clock was set back since the last renewal.

    `round_ended_at` is when this process last ended a round. While the clock is behind, the row is
    left as it is, and nobody can take the lead. Raise LeadLost if another process has.
    """
    began_at = time.clock_gettime(_STEADY_CLOCK)
    row = Lead.objects.filter(pk=1, epoch=term.epoch)
    renewed_at = row.values_list("renewed_at", flat=True).first()
    if renewed_at is None:
        raise LeadLost
    if renewed_at > now + CLOCK_TOLERANCE:
        term.ends_at = began_at + LEASE.total_seconds()
        return renewed_at - now
    if not row.update(renewed_at=now, round_ended_at=round_ended_at):
        raise LeadLost
    term.ends_at = began_at + LEASE.total_seconds()
    return timedelta()


def release(term: Term) -> None:
    """Give up the lead, so that another process need not wait."""
    Lead.objects.filter(pk=1, epoch=term.epoch).update(holder="")


def release_leftover() -> None:
    """Give up the lead of an earlier process, for the only one that can use this database."""
    Lead.objects.filter(pk=1).update(holder="")


def is_alive(holder: str, renewed_at: datetime | None, now: datetime) -> bool:
    """Return whether a process leads, or had the lead so recently that another may take it over."""
    return bool(holder) and renewed_at is not None and now - renewed_at <= SILENCE


def is_stalled(round_ended_at: datetime | None, now: datetime) -> bool:
    """Return whether the process that leads has not ended a round for a minute."""
    return round_ended_at is not None and now - round_ended_at > MAX_ROUND


def clock_catches_up_at(renewed_at: datetime | None, now: datetime) -> datetime | None:
    """Return until when nobody reads because the clock was set back; None if it was not."""
    is_behind = renewed_at is not None and renewed_at > now + CLOCK_TOLERANCE
    return renewed_at if is_behind else None
