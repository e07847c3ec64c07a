"""Who may call the API: the holder of a good token, so many times a minute.

Only the token counts. A session's cookie opens nothing here, so no other site can have a browser
call the API for its owner, and no form token is needed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate

import structlog
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Rights
from dashboard.db import health as db_health
from dashboard.db.threads import now
from dashboard.models import ApiToken
from dashboard.models.api_tokens import Scope, Standing
from dashboard.web.api.responses import Failed, failure
from dashboard.web.http import database_outage

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever calls: the account that the token acts for, and what it may do by this token."""

    user: User
    rights: Rights
    token_name: str


type Endpoint[**P] = Callable[Concatenate[HttpRequest, Caller, P], HttpResponse]


def endpoint[**P](
    *methods: str,
) -> Callable[[Endpoint[P]], Callable[Concatenate[HttpRequest, P], HttpResponse]]:
    """Make a view of the API: these methods (none: any), a caller let in, every error as JSON."""

    def decorate(view: Endpoint[P]) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
        @csrf_exempt
        @login_not_required
        @wraps(view)
        def answered(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            try:
                if methods and request.method not in methods:
                    raise Failed(
                        405,
                        "method_not_allowed",
                        f"This address takes {' and '.join(methods)}.",
                        headers={"Allow": ", ".join(methods)},
                    )
                return view(request, _caller(request), *args, **kwargs)
            except Failed as failed:
                return failure(failed)
            except Exception as error:
                if db_health.failed(error):
                    return database_outage.answer(request)
                log.exception("api.defect", path=request.path)
                return failure(Failed(500, "defect", "The dashboard has failed; its log says how."))

        return answered

    return decorate


def _caller(request: HttpRequest) -> Caller:
    # A view that waits is asked twice (web/http/deferred.py); the second time is no new request.
    caller: Caller | None = getattr(request, "_api_caller", None)
    if caller is None:
        caller = _let_in(request)
        request._api_caller = caller  # type: ignore[attr-defined]
    return caller


def _let_in(request: HttpRequest) -> Caller:
    scheme, _, secret = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise _unauthorised("token_missing", "Send “Authorization: Bearer <token>”.", "")
    token = ApiToken.objects.known_by(secret.strip())
    if token is None:
        raise _unauthorised("token_unknown", "There is no such token.")
    moment = now()
    standing = token.standing(moment)
    if standing is not Standing.GOOD:
        raise _unauthorised(f"token_{standing}", _WHY[standing])
    wait = token.take_turn(moment)
    if wait:
        raise Failed(
            429,
            "too_many_requests",
            "This token’s requests of this minute are used up.",
            headers={"Retry-After": str(math.ceil(wait.total_seconds()))},
        )
    rights = permissions.rights(token.user)
    if token.scope != Scope.ABORT:
        rights = rights.reading_only()
    return Caller(token.user, rights, token.name)


_WHY = {
    Standing.REVOKED: "This token was revoked.",
    Standing.EXPIRED: "This token has expired.",
    Standing.INACTIVE: "The account of this token is switched off.",
}


def _unauthorised(code: str, message: str, why: str = 'error="invalid_token"') -> Failed:
    # https://www.rfc-editor.org/rfc/rfc6750#section-3
    challenge = ", ".join(filter(None, ['Bearer realm="release flows"', why]))
    return Failed(401, code, message, headers={"WWW-Authenticate": challenge})
