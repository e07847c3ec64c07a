"""The API's routes for notification integrations: who is told of events by a webhook."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

from .api import NAME, Handler, in_team
from .calls import ApiError, Call, Json, page
from .sandbox import Sandbox
from .webhooks import Integration

TYPES = ("RAW_WEBHOOK", "DISCORD", "TEAMS", "TEAMS_WORKFLOWS")
REQUIRED = ("name", "type", "webhook", "events")
PRINTABLE = re.compile(r"[ -~]*")
"""What a header can carry."""


def integrations(sandbox: Sandbox, call: Call) -> Json:
    in_team(sandbox, call)
    return page(
        list(sandbox.webhooks.integrations.values()),
        call,
        sandbox.choices,
        key="notificationIntegrations",
        id_of=lambda integration: integration.id,
        form=Integration.in_list,
    )


def integration(sandbox: Sandbox, call: Call) -> Json:
    return {"data": _integration(sandbox, call).in_full()}


def create(sandbox: Sandbox, call: Call) -> Json:
    in_team(sandbox, call)
    request = _request(call.body, required=REQUIRED)
    slug = re.sub("[^a-z0-9]+", "-", request["name"].lower())
    new = Integration(slug, request["name"], request["webhook"], call.now)
    _change(new, request)
    return {"data": sandbox.webhooks.add(new).in_full()}


def update(sandbox: Sandbox, call: Call) -> Json:
    found = _integration(sandbox, call)
    _change(found, _request(call.body))
    found.updated = call.now
    # Whoever corrects an address wants it tried again. A guess.
    found.disabled, found.failures, found.failed_at = False, 0, None
    return {"data": found.in_full()}


def delete(sandbox: Sandbox, call: Call) -> Json:
    del sandbox.webhooks.integrations[_integration(sandbox, call).id]
    return {"data": {}}


def _integration(sandbox: Sandbox, call: Call) -> Integration:
    in_team(sandbox, call)
    found = sandbox.webhooks.integrations.get(call.params["notification"])
    if found is None:
        raise ApiError(404, "Notification integration not found")
    return found


def _change(integration: Integration, request: Json) -> None:
    for key in ("name", "type", "webhook", "events", "secret", "restricted", "projects"):
        if key in request:
            setattr(integration, key, request[key])


def _request(body: bytes, *, required: tuple[str, ...] = ()) -> Json:
    try:
        request: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON") from None
    if not isinstance(request, dict):
        raise ApiError(400, "The body must be an object")
    rules = {
        "name": (_is_name, "must be 3 to 39 characters: a letter, then letters and digits"),
        "type": (lambda value: value in TYPES, f"must be one of {', '.join(TYPES)}"),
        "webhook": (_is_address, "must be a web address"),
        "events": (_are_events, "must be an object of booleans, by trigger"),
        "secret": (_is_secret, "must be text that a header can carry"),
        "restricted": (lambda value: isinstance(value, bool), "must be a boolean"),
        "projects": (_are_ids, "must be a list of project ids"),
    }
    details = {key: ["is required"] for key in required if key not in request}
    for key, (allows, rule) in rules.items():
        if key in request and not allows(request[key]):
            details[key] = [rule]
    if "secret" in request and request.get("type", "RAW_WEBHOOK") != "RAW_WEBHOOK":
        details["secret"] = ["is for RAW_WEBHOOK only"]
    if details:
        raise ApiError(400, "Invalid request", details)
    return request


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(NAME.fullmatch(value))


def _is_address(value: object) -> bool:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        return parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def _are_events(value: object) -> bool:
    return isinstance(value, dict) and all(
        key.startswith("trigger:") and isinstance(wanted, bool) for key, wanted in value.items()
    )


def _is_secret(value: object) -> bool:
    return isinstance(value, str) and bool(PRINTABLE.fullmatch(value))


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/integrations/notifications", integrations),
    ("POST", "/integrations/notifications", create),
    ("GET", "/integrations/notifications/{notification}", integration),
    ("POST", "/integrations/notifications/{notification}", update),
    ("DELETE", "/integrations/notifications/{notification}", delete),
)
"""Routes that exist plain and in team form."""
