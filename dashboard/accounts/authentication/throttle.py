"""Throttle attempts: after a burst of failures, one more is let through each interval.

Only failures count, so a success writes nothing; of sign-ins through an identity provider each
attempt, since each makes requests to the provider. The counters are in the database, so all
processes share them. Each counter is one timestamp, to which a failure adds the limit's interval
(GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm): there is no window to start or
reset.

A sign-in counts against its account at its address, its account, and its address. The first has the
lowest limit, so that a stranger who guesses keeps the user out at the stranger's address; at all
addresses only by a hundred guesses from several.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network

from django.db import transaction

from dashboard.models import FailureCounter

IPV6_PREFIX = 64  # bits
PURGE_LIMIT = 20  # drained counters deleted with each failure: more than a failure adds


@dataclass(frozen=True, slots=True)
class Limit:
    """How many failures (or attempts) are let through at once, and how long each is remembered."""

    name: str
    burst: int
    interval: timedelta


# A user who mistypes needs a few attempts; an hour of guessing at one account gets 70.
ACCOUNT_AT_ADDRESS = Limit("account at address", 10, timedelta(minutes=1))
ACCOUNT = Limit("account", 100, timedelta(seconds=10))  # at all addresses together
# An office shares an address: many people may mistype on a Monday morning.
ADDRESS = Limit("address", 30, timedelta(seconds=10))
# Nobody can guess these secrets, so a valid one is never throttled. The limits keep strangers and
# broken clients from flooding the database and the access log.
TOKEN = Limit("token", 10, timedelta(seconds=10))
UNKNOWN_TOKENS = Limit("tokens", 30, timedelta(seconds=5))  # of all addresses together
WEBHOOK = Limit("webhook", 20, timedelta(seconds=5))
# Attempts through an identity provider: an office that signs in on a Monday morning stays below it.
OIDC_ATTEMPTS = Limit("oidc", 100, timedelta(seconds=1))
# Failed attempts of an address that are recorded in the access log.
OIDC_FAILURES = Limit("oidc failures", 30, timedelta(seconds=10))


@dataclass(frozen=True, slots=True)
class Counter:
    """Whose failures (or attempts) a limit counts; its digest is stored: it may be mistyped."""

    limit: Limit
    subject: str

    @property
    def key(self) -> str:
        """The counter's key in the database."""
        text = f"{self.limit.name}\0{self.subject}".encode(errors="replace")
        return blake2b(text, digest_size=32).hexdigest()


def network(client_address: str | None, *, ipv4_prefix: int = 32) -> str:
    """Return what a client address counts as; for IPv6 its /64, which a single host may own."""
    if client_address is None:
        return ""
    address = ip_address(client_address)
    prefix = IPV6_PREFIX if isinstance(address, IPv6Address) else ipv4_prefix
    return str(ip_network((address, prefix), strict=False).network_address)


def remaining_wait(counters: Collection[Counter], at: datetime) -> timedelta:
    """Return how long until an attempt is let through by all counters; zero: now. One query."""
    limits = {counter.key: counter.limit for counter in counters}
    rows = FailureCounter.objects.filter(key__in=limits).values_list("key", "drained_at")
    waits = [
        drained_at - at - limits[key].interval * (limits[key].burst - 1) for key, drained_at in rows
    ]
    return max([timedelta(), *waits])


def count(counters: Collection[Counter], at: datetime) -> bool:
    """Count a failure, or an attempt where each counts.

    Return whether any counter had drained before: the first for some time.
    """
    limits = {counter.key: counter.limit for counter in counters}
    is_first = False
    with transaction.atomic():
        for key in sorted(limits):  # in one order, so that two failures cannot deadlock
            row, _ = FailureCounter.objects.select_for_update().get_or_create(
                key=key, defaults={"drained_at": at}
            )
            is_first |= row.drained_at <= at
            row.drained_at = max(row.drained_at, at) + limits[key].interval
            row.save(update_fields=["drained_at"])
        _purge(at)
    return is_first


def _purge(at: datetime) -> None:
    # Skips rows that another process is counting in: two purges must not wait for each other.
    drained = FailureCounter.objects.select_for_update(skip_locked=True).filter(drained_at__lt=at)
    if keys := list(drained.values_list("pk", flat=True)[:PURGE_LIMIT]):
        FailureCounter.objects.filter(pk__in=keys).delete()
