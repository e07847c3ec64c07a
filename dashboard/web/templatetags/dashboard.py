"""Template tags of the dashboard."""

from datetime import datetime

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
def clock(when: datetime) -> SafeString:
    """Render a point in time as it is on the clock: for what is yet to come."""
    return _time(when, "clock", f"{timezone.localtime(when):%H:%M:%S}")


@register.simple_tag
def moment(when: datetime) -> SafeString:
    """Render a point in time, complete without JavaScript; app.js adds how long ago it was."""
    local = timezone.localtime(when)
    return _time(when, "moment", f"{local.day} {local:%b %H:%M:%S}")


def _time(when: datetime, kind: str, text: str) -> SafeString:
    local = timezone.localtime(when)
    return format_html(
        '<time datetime="{}" title="{}" data-{}>{}</time>',
        when.isoformat(),
        f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()}",
        kind,
        text,
    )
