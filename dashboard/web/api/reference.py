"""The OpenAPI document for people: rows of its calls, types and errors for a template."""

from collections.abc import Mapping
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from markdown_it import MarkdownIt

from dashboard.web.api import openapi
from dashboard.web.http.responses.json_responses import ERRORS

_MARKDOWN = MarkdownIt("commonmark", {"html": False})


def context() -> dict[str, Any]:
    """Return what components/api_reference.html shows."""
    document = openapi.document()
    schemas = document["components"]["schemas"]
    return {
        "calls": [
            _call(method, path, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
        ],
        "types": [
            {
                "name": name,
                "text": _rich(schema.get("description", "")),
                "fields": [_field(*field) for field in schema["properties"].items()],
            }
            for name, schema in schemas.items()
        ],
        "errors": [
            {"code": code, "status": status, "text": _rich(text)}
            for code, (status, text) in ERRORS.items()
        ],
    }


def _call(method: str, path: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody")
    return {
        "method": method.upper(),
        "path": path,
        "text": _rich(operation["summary"]),
        "description": _rich(operation.get("description", "")),
        "scope": operation["security"][0]["token"][0],
        "parameters": [
            _field(each["name"], each["schema"])
            for each in operation.get("parameters", ())
            if each["in"] == "query"
        ],
        "body": body and _type(body["content"]["application/json"]["schema"]),
        "answer": _type(operation["responses"]["200"]["content"]["application/json"]["schema"]),
    }


def _field(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "type": _type(schema), "text": _rich(schema.get("description", ""))}


def _type(schema: Mapping[str, Any]) -> SafeString:
    """Return a schema in words, with links to the types that it names."""
    match schema:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return format_html('<a href="#type-{}">{}</a>', name, name)
        case {"anyOf": schemas}:
            return format_html_join(" or ", "{}", ((_type(each),) for each in schemas))
        case {"enum": values}:
            return format_html_join(", ", "<code>{}</code>", ((value,) for value in values))
        case {"type": "array", "items": items}:
            return format_html("list of {}", _type(items))
        case {"minimum": least, "maximum": most} if most < 1_000_000:  # more is no limit for people
            return format_html("{} to {}", least, most)
    return format_html("{}", "time" if schema.get("format") == "date-time" else schema["type"])


def _rich(text: str) -> SafeString:
    return SafeString(_MARKDOWN.renderInline(text))
