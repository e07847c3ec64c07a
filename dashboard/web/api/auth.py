"""Authentication and throttling of the API by bearer token.

Session cookies are ignored, so no other site can make a browser call the API for its user, and no
CSRF token is needed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, Concatenate

import structlog
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.core.exceptions import TooManyFieldsSent
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from dashboard.accounts import access_log, permissions
from dashboard.accounts.authentication import throttle
from dashboard.accounts.authentication.throttle import Counter
from dashboard.accounts.permissions import Permissions
from dashboard.db import health as db_health
from dashboard.db.threads import now
from dashboard.models import ApiToken
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope, TokenStatus
from dashboard.web.http import database_outage
from dashboard.web.http.client_address import client_address
from dashboard.web.http.responses.deferred import Deferred
from dashboard.web.http.responses.json_responses import ApiError, error_response

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ApiClient:
    """An authenticated client: the token's account, and its rights within the token's scope."""

    user: User
    permissions: Permissions
    token_name: str


# https://www.rfc-editor.org/rfc/rfc6750#section-3
_CHALLENGE = 'Bearer realm="release flows"'

type ApiView[**P] = Callable[Concatenate[HttpRequest, ApiClient, P], HttpResponse]


def api_view[**P](
    *methods: str,
    answer: Any = None,
    query: type | None = None,
    body: type | None = None,
) -> Callable[[ApiView[P]], Callable[Concatenate[HttpRequest, P], HttpResponse]]:
    """Wrap a view: allow only `methods` (none: any), authenticate, and return errors as JSON.

    With an `answer` the OpenAPI document has it: its docstring, and the types of its answer, query
    and body.
    """

    def decorate(view: ApiView[P]) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
        @csrf_exempt
        @login_not_required
        @wraps(view)
        def wrapper(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            def respond() -> HttpResponse:
                if settings.HTTPS and not request.is_secure():
                    raise ApiError("https_required")
                if methods and request.method not in methods:
                    raise ApiError(
                        "method_not_allowed",
                        f"Method not allowed; use {' or '.join(methods)}.",
                        headers={"Allow": ", ".join(methods)},
                    )
                return view(request, _authenticate(request), *args, **kwargs)

            response = _with_json_errors(request, respond)
            if isinstance(response, Deferred):
                finish = response.finish
                response.finish = lambda work: _with_json_errors(  # type: ignore[method-assign]
                    request, lambda: finish(work)
                )
            return response

        # What openapi.py reads.
        vars(wrapper).update(methods=methods, answer=answer, query=query, body=body)
        return wrapper

    return decorate


def _with_json_errors(request: HttpRequest, respond: Callable[[], HttpResponse]) -> HttpResponse:
    try:
        return respond()
    except ApiError as api_error:
        return error_response(api_error)
    except TooManyFieldsSent:
        return error_response(ApiError("bad_parameter", "Too many parameters."))
    except Exception as error:
        if db_health.record_failure(error):
            return database_outage.unavailable_response(request)
        log.exception("api.defect", path=request.path)
        return error_response(ApiError("defect"))


def _authenticate(request: HttpRequest) -> ApiClient:
    scheme, _, secret = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        challenge = {"WWW-Authenticate": _CHALLENGE}
        raise ApiError("token_missing", "Send “Authorization: Bearer <token>”.", challenge)
    token = ApiToken.objects.find_by_secret(secret.strip())
    current_time = now()
    if token is None:
        raise _refuse(request, None, "token_unknown", current_time)
    status = token.status(current_time)
    if status is not TokenStatus.VALID:
        raise _refuse(request, token, f"token_{status}", current_time)
    if token.mark_first_use(current_time):
        access_log.record(
            AccessKind.TOKEN_FIRST_USED,
            current_time,
            user=token.user,
            client_address=client_address(request),
            token_name=token.name,
        )
    retry_after = token.throttle(current_time)
    if retry_after:
        raise _try_later("too_many_requests", retry_after)
    client_permissions = permissions.for_user(token.user)
    if token.scope != Scope.ABORT:
        client_permissions = client_permissions.view_only(with_logs=token.scope == Scope.LOGS)
    return ApiClient(token.user, client_permissions, token.name)


def _refuse(request: HttpRequest, token: ApiToken | None, code: str, at: datetime) -> ApiError:
    """Return a 401, or a 429 after many of the same token and address; record the first of them."""
    error = ApiError(code, headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'})
    address = client_address(request)
    subject = f"{throttle.network(address)} {token.pk if token is not None else 'unknown'}"
    counters = [Counter(throttle.TOKEN, subject)]
    if token is None:  # or strangers with many addresses would write one event each
        counters.append(Counter(throttle.UNKNOWN_TOKENS, ""))
    if wait := throttle.remaining_wait(counters, at):
        return _try_later("too_many_failures", wait, f"{error.message} Sent too often.")
    if throttle.count(counters, at):
        access_log.record(
            AccessKind.TOKEN_REFUSED,
            at,
            user=token.user if token is not None else None,
            client_address=address,
            token_name=token.name if token is not None else "",
            detail=error.message,
        )
    return error


def _try_later(code: str, wait: timedelta, message: str = "") -> ApiError:
    seconds = str(math.ceil(wait.total_seconds()))
    return ApiError(code, message, headers={"Retry-After": seconds})
