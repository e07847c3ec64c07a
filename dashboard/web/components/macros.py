"""Macros of templates/jinja2/: markup that pages repeat by the hundred, rendered by Jinja.

Jinja compiles a template to Python, so a row costs a fraction of what it costs in Django's
templates. It escapes every value, and a name that does not exist is an error.
"""

import re
from typing import Any, cast

from django.template import engines
from django.template.backends.jinja2 import Jinja2
from django.utils.safestring import SafeString, mark_safe
from jinja2 import Environment, StrictUndefined
from jinja2.ext import Extension
from markupsafe import Markup

from dashboard.web.components import elements, headings


def render(name: str, *args: object, **kwargs: object) -> SafeString:
    """Return the markup of a macro; `name` is its file in templates/jinja2/, `#` and its name."""
    file_name, _separator, macro = name.partition("#")
    template = cast("Jinja2", engines["jinja2"]).env.get_template(file_name)
    return mark_safe(str(getattr(template.module, macro)(*args, **kwargs)))  # noqa: S308


def environment(**options: Any) -> Environment:
    """Return the environment of Django's Jinja engine, which settings.TEMPLATES names."""
    options |= {"undefined": StrictUndefined, "trim_blocks": True, "extensions": [Dedented]}
    templates = Environment(**options)  # noqa: S701, Django passes autoescape=True
    templates.filters["attribute"] = elements.attribute
    templates.globals |= {
        "_": Markup,  # texts may contain markup, as in Django's templates; values are escaped
        "clock": elements.clock,
        "dated_clock": elements.dated_clock,
        "icon": elements.icon,
        "iso_utc": elements.iso_utc,
        "ngettext": _plural,
        "rich_text": elements.rich_text,
        "run_title": headings.run_title,
        "since": elements.since,
        "time_ago": elements.time_ago,
    }
    return templates


class Dedented(Extension):
    """Leaves out the indentation of templates: a tenth of a long page's bytes."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return re.sub(r"(?m)^[ \t]+", "", source)


def _plural(one: str, many: str, number: int) -> Markup:
    return Markup(one if number == 1 else many)  # noqa: S704
