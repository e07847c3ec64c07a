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
    local = timezone.localtime(when)
    return format_html(
        '<time datetime="{}" title="{}" data-clock>{}</time>',
        when.isoformat(),
        f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()}",
        f"{local:%H:%M:%S}",
    )


@register.simple_tag
def moment(when: datetime) -> SafeString:
    """Render a point in time, complete without JavaScript; app.js adds how long ago it was."""
    local = timezone.localtime(when)
    return format_html(
        '<time datetime="{}" title="{}" data-moment>{}</time>',
        when.isoformat(),
        f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()}",
        f"{local.day} {local:%b %H:%M:%S}",
    )
