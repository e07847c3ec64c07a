"""Whether answers of the API are as its OpenAPI document says."""

import re
from datetime import datetime
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

from dashboard.web.api import openapi

formats = FormatChecker()


@formats.checks("date-time", raises=ValueError)
def is_utc(value: object) -> bool:
    return isinstance(value, str) and value.endswith("Z") and bool(datetime.fromisoformat(value))


@cache
def closed_components() -> dict[str, Any]:
    """The document's types, which here may have no fields but those that it names."""
    types = openapi.document()["components"]["schemas"]
    return {
        "schemas": {name: type_ | {"additionalProperties": False} for name, type_ in types.items()}
    }


def find_operation(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """Return the documented path and operation of a request; None if there is none."""
    for template, operations in openapi.document()["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
            operation = operations.get("get" if method == "HEAD" else method.lower())
            return None if operation is None else (template, operation)
    return None


def expect_documented(answer: httpx.Response) -> None:
    """Fail if the document does not say that this request may get this answer."""
    answer.read()
    request = answer.request
    found = find_operation(request.method, request.url.raw_path.decode().partition("?")[0])
    if found is None:
        assert answer.status_code in {401, 404, 405, 429}, f"{request.method} {request.url}"
        schema: dict[str, Any] = {"$ref": "#/components/schemas/ErrorBody"}
    else:
        responses = found[1]["responses"]
        documented = responses.get(str(answer.status_code), responses["default"])
        schema = documented["content"]["application/json"]["schema"]
    if request.method != "HEAD":
        schema = schema | {"components": closed_components()}
        Draft202012Validator(schema, format_checker=formats).validate(answer.json())
