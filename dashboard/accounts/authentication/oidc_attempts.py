"""Attempts to sign in through the OpenID provider: throttled at the start, recorded if they fail.

Each attempt counts, so that strangers can neither flood the provider through us nor fill the table
of sessions. A browser in which somebody has signed in before has a counter of its own.
"""

from datetime import datetime, timedelta

from dashboard.accounts import access_log
from dashboard.accounts.authentication import throttle
from dashboard.accounts.authentication.oidc_account import SOURCE
from dashboard.accounts.authentication.oidc_claims import OIDCFailure
from dashboard.accounts.authentication.throttle import Counter
from dashboard.models.accounts.access import AccessKind


def begin(client_address: str | None, browser: str, at: datetime) -> timedelta:
    """Return for how long an attempt is throttled; zero: it is counted, and may go on.

    `browser` is the id of a known browser, empty for others (known_browsers.py of the web room).
    """
    counter = (
        Counter(throttle.OIDC_ATTEMPTS_OF_BROWSER, browser)
        if browser
        else Counter(throttle.OIDC_ATTEMPTS, throttle.network(client_address))
    )
    wait = throttle.remaining_wait([counter], at)
    if not wait:
        throttle.count([counter], at)
    return wait


def record_failure(failure: OIDCFailure, at: datetime, client_address: str | None) -> None:
    """Record a failed attempt in the access log, unless there were many from this address."""
    counters = [Counter(throttle.OIDC_FAILURES, throttle.network(client_address))]
    if throttle.remaining_wait(counters, at):
        return
    throttle.count(counters, at)
    access_log.record(
        AccessKind.SIGN_IN_FAILED,
        at,
        user=failure.user,
        client_address=client_address,
        detail=f"{SOURCE}: {failure}",
    )
