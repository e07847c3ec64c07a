"""The API's routes for notification integrations: who is told of events by a webhook."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

from .api import NAME_PATTERN, Handler, check_team
from .calls import ApiError, ApiRequest, Json, paginate
from .sandbox import Sandbox
from .webhooks import NotificationIntegration

TYPES = ("RAW_WEBHOOK", "DISCORD", "TEAMS", "TEAMS_WORKFLOWS")
REQUIRED = ("name", "type", "webhook", "events")
PRINTABLE = re.compile(r"[ -~]*")
"""What a header can carry."""


def list_integrations(sandbox: Sandbox, request: ApiRequest) -> Json:
    check_team(sandbox, request)
    return paginate(
        list(sandbox.webhooks.integrations.values()),
        request,
        sandbox.choices,
        key="notificationIntegrations",
        get_id=lambda integration: integration.id,
        serialize=NotificationIntegration.serialize,
    )


def get_integration(sandbox: Sandbox, request: ApiRequest) -> Json:
    return {"data": _find_integration(sandbox, request).serialize_detail()}


def create_integration(sandbox: Sandbox, request: ApiRequest) -> Json:
    check_team(sandbox, request)
    fields = _parse_body(request.body, required=REQUIRED)
    slug = re.sub("[^a-z0-9]+", "-", fields["name"].lower())
    integration = NotificationIntegration(slug, fields["name"], fields["webhook"], request.now)
    _set_fields(integration, fields)
    return {"data": sandbox.webhooks.add(integration).serialize_detail()}


def update_integration(sandbox: Sandbox, request: ApiRequest) -> Json:
    integration = _find_integration(sandbox, request)
    _set_fields(integration, _parse_body(request.body))
    integration.updated_at = request.now
    # Whoever corrects an address wants it tried again. A guess.
    integration.is_disabled, integration.failure_count, integration.first_failed_at = False, 0, None
    return {"data": integration.serialize_detail()}


def delete_integration(sandbox: Sandbox, request: ApiRequest) -> Json:
    del sandbox.webhooks.integrations[_find_integration(sandbox, request).id]
    return {"data": {}}


def _find_integration(sandbox: Sandbox, request: ApiRequest) -> NotificationIntegration:
    check_team(sandbox, request)
    integration = sandbox.webhooks.integrations.get(request.params["notification"])
    if integration is None:
        raise ApiError(404, "Notification integration not found")
    return integration


def _set_fields(integration: NotificationIntegration, request: Json) -> None:
    for key in ("name", "type", "webhook", "events", "secret", "restricted", "projects"):
        if key in request:
            setattr(integration, key, request[key])


def _parse_body(body: bytes, *, required: tuple[str, ...] = ()) -> Json:
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "The body must be an object")
    rules = {
        "name": (_is_name, "must be 3 to 39 characters: a letter, then letters and digits"),
        "type": (lambda value: value in TYPES, f"must be one of {', '.join(TYPES)}"),
        "webhook": (_is_url, "must be a web address"),
        "events": (_are_events, "must be an object of booleans, by trigger"),
        "secret": (_is_secret, "must be text that a header can carry"),
        "restricted": (lambda value: isinstance(value, bool), "must be a boolean"),
        "projects": (_are_ids, "must be a list of project ids"),
    }
    details = {key: ["is required"] for key in required if key not in fields}
    for key, (allows, rule) in rules.items():
        if key in fields and not allows(fields[key]):
            details[key] = [rule]
    if "secret" in fields and fields.get("type", "RAW_WEBHOOK") != "RAW_WEBHOOK":
        details["secret"] = ["is for RAW_WEBHOOK only"]
    if details:
        raise ApiError(400, "Invalid request", details)
    return fields


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(NAME_PATTERN.fullmatch(value))


def _is_url(value: object) -> bool:
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
    ("GET", "/integrations/notifications", list_integrations),
    ("POST", "/integrations/notifications", create_integration),
    ("GET", "/integrations/notifications/{notification}", get_integration),
    ("POST", "/integrations/notifications/{notification}", update_integration),
    ("DELETE", "/integrations/notifications/{notification}", delete_integration),
)
"""Routes that exist plain and in team form."""
