"""Sign in with a password: throttled before and after the wait, and recorded if it fails.

No answer shows whether an account exists: a name without one is throttled like any other, and
Django hashes the password anyway, so that it takes as long.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from dashboard.accounts import access_log
from dashboard.accounts.authentication import break_glass, throttle
from dashboard.accounts.authentication.throttle import Counter
from dashboard.db.threads import now
from dashboard.models import AccessEvent
from dashboard.models.accounts.access import AccessKind

ADDRESS_MEMORY = timedelta(days=30)  # how long an address is known after a sign-in
MAX_SIGN_INS = 200  # newest sign-ins of an account whose addresses are known


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to sign in, without its password."""

    username: str
    client_address: str | None

    @property
    def counters(self) -> list[Counter]:
        """What a failure counts against."""
        counters = self.address_counters
        # Strangers with many addresses cannot keep the break-glass account out.
        if not break_glass.is_name(self.username):
            counters.append(Counter(throttle.ACCOUNT, self.username.casefold()))
        return counters

    @property
    def address_counters(self) -> list[Counter]:
        """What a failure counts against at its own address."""
        name, address = self.username.casefold(), throttle.network(self.client_address)
        return [
            Counter(throttle.ACCOUNT_AT_ADDRESS, f"{address} {name}"),
            Counter(throttle.ADDRESS, address),
        ]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failed attempt: throttled for `wait` without a look at the password; zero: wrong."""

    wait: timedelta = timedelta()


def remaining_wait(attempt: Attempt, at: datetime) -> timedelta:
    """Return how long the attempt is throttled; zero: not."""
    wait = throttle.remaining_wait(attempt.counters, at)
    if wait and _is_address_known(attempt, at):
        # Strangers who guess elsewhere do not keep the user out.
        wait = throttle.remaining_wait(attempt.address_counters, at)
    return wait


def _is_address_known(attempt: Attempt, at: datetime) -> bool:
    """Return whether the account has signed in from the attempt's address lately. One query."""
    sign_ins = AccessEvent.objects.filter(username=attempt.username, kind=AccessKind.SIGNED_IN)
    recent = sign_ins.values_list("client_address", "occurred_at")[:MAX_SIGN_INS]
    own = throttle.network(attempt.client_address)
    return any(
        throttle.network(address) == own and occurred_at > at - ADDRESS_MEMORY
        for address, occurred_at in recent
    )


@sensitive_variables("password")
def check_password(request: HttpRequest, attempt: Attempt, password: str) -> User | Refusal:
    """Return the account of a user name and password, or a refusal, which is counted and recorded.

    Takes a fifth of a second: for the password queue. Throttled again, since many attempts may have
    been queued before the first of them failed.
    """
    if wait := remaining_wait(attempt, now()):
        return Refusal(wait)
    user = authenticate(request, username=attempt.username, password=password)
    if isinstance(user, User):
        return user
    # Without an account the name is not recorded: it may be a password in the wrong field.
    account = User.objects.filter(username=attempt.username).first()
    return refuse(attempt, AccessKind.SIGN_IN_FAILED, account, _failure_detail(account))


def refuse(attempt: Attempt, kind: AccessKind, account: User | None, detail: str) -> Refusal:
    """Count and record that the password of an attempt was wrong."""
    failed_at = now()
    throttle.count(attempt.counters, failed_at)
    if wait := remaining_wait(attempt, failed_at):
        detail += f" Throttled for {wait.total_seconds():.0f} s."
    access_log.record(
        kind, failed_at, user=account, client_address=attempt.client_address, detail=detail
    )
    return Refusal()


def _failure_detail(account: User | None) -> str:
    if account is None:
        return "No such account."
    if not break_glass.may_use_password(account):
        return "Password sign-in is disabled for this account."
    if not account.is_active:
        return "The account is inactive, or the password was wrong."
    return "Wrong password."
