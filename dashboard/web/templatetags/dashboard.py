"""Template tags of the dashboard.

Every time on a page is a <time> element: its text and title are in the deployment's time zone, from
which times.js rewrites them in the zone that the user chose.
"""

from datetime import UTC, datetime

from django import template
from django.conf import settings
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html, format_html_join, json_script
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from dashboard.aborts.messages import ClockTime, MessageText, format_with_day
from dashboard.runs import durations, local_time
from dashboard.runs import summary as run_summary
from dashboard.runs.rich_text import format_parts
from dashboard.runs.summary import Countdown, Elapsed, ExternalText, RichText
from dashboard.sync.freshness import SyncHealth
from dashboard.web.components import headings
from dashboard.web.components.runs.incident_summary import Link
from dashboard.web.components.tab_title import Icon

register = template.Library()


register.filter("heading", headings.cut)


@register.simple_tag
def clock(timestamp: datetime) -> SafeString:
    """Render a clock time; with its day unless that is today."""
    local = timezone.localtime(timestamp)
    is_today = local.date() == timezone.localdate()
    return _time_element(
        timestamp, "clock", f"{local:%H:%M:%S}" if is_today else format_with_day(local)
    )


@register.simple_tag
def dated_clock(timestamp: datetime) -> SafeString:
    """Render a clock time for stored text, with its day, which times.js removes if it is today."""
    return _time_element(timestamp, "clock", format_with_day(timezone.localtime(timestamp)))


@register.simple_tag
def full_time(timestamp: datetime) -> SafeString:
    """Render a date, time and zone for SVG titles, since a title can't have a tooltip."""
    return format_html(
        '<time datetime="{}" data-full>{}</time>',
        _iso_utc(timestamp),
        local_time.format_full(timestamp),
    )


@register.simple_tag
def time_ago(timestamp: datetime) -> SafeString:
    """Render a date and time, complete without JavaScript; times.js adds how long ago it was."""
    return _time_element(timestamp, "ago", format_with_day(timezone.localtime(timestamp)))


@register.simple_tag
def since(timestamp: datetime) -> SafeString:
    """Render an elapsed time, counted by times.js; without JavaScript, the start time."""
    return _time_element(timestamp, "since", _since_text(timezone.localtime(timestamp)))


@register.simple_tag
def until(timestamp: datetime) -> SafeString:
    """Render a countdown, counted by times.js; without JavaScript, the due time."""
    return _time_element(timestamp, "until", _until_text(timezone.localtime(timestamp)))


@register.simple_tag
def deployment_zone() -> str:
    """Return the name of the deployment's time zone."""
    return settings.TIME_ZONE  # the current zone's name may be an offset such as "-03"


@register.simple_tag
def time_texts() -> SafeString:
    """Render, as JSON, the texts with which times.js formats elapsed times and countdowns."""
    texts = durations.unit_formats() | {
        "for": _("for %(time)s"),
        "in": _("in %(time)s"),
        "ago": _("%(time)s ago"),
        "due": _("due now"),
    }
    return json_script(texts, "time-texts")


@register.simple_tag
def icon(name: str) -> SafeString:
    """Render a glyph of components/icons.html, placed beside the text it illustrates."""
    return format_html('<svg class="glyph" aria-hidden="true"><use href="#g-{}"></use></svg>', name)


@register.simple_tag
def icon_url(state: str) -> str:
    """Return the URL of a tab's icon; the OK icon if the page has no state."""
    return static(f"icons/{state or Icon.OK}.svg")


@register.simple_tag
def rich_text(parts: RichText | MessageText, now: datetime | None = None) -> SafeString:
    """Render rich text; times.js keeps its times current.

    Without JavaScript its times are as of `now`. If that is None they are clock times, which stay
    correct in stored text.
    """
    if isinstance(parts, str):
        parts = (parts,)
    return format_html_join("", "{}", ((_render_part(part, now),) for part in parts))


@register.simple_tag
def health_text(health: SyncHealth) -> SafeString:
    """Render the health of the sync as a sentence with its times."""
    since = time_ago(health.since) if health.since else ""
    until = clock(health.until) if health.until else ""
    return rich_text(format_parts(health.template, text=health.text, since=since, until=until))


def _render_part(part: str | Elapsed | Countdown | ClockTime, now: datetime | None) -> str:
    if isinstance(part, ClockTime):
        return _time_element(part.at, "clock", str(part))
    if isinstance(part, Elapsed | Countdown):
        local = timezone.localtime(part.at)
        if isinstance(part, Elapsed):
            text = run_summary.format_time_part(part, now) if now else _since_text(local)
            return _time_element(part.at, "since data-sentence", text)
        return _time_element(
            part.at, "until", run_summary.format_time_part(part, now) if now else _until_text(local)
        )
    if isinstance(part, Link):
        return format_html('<a href="{}" data-absolute-url>{}</a>', part, part)
    return format_html("<bdi>{}</bdi>", part) if isinstance(part, ExternalText) else part


def _since_text(local: datetime) -> str:
    return _("since %(time)s") % {"time": format_with_day(local)}


def _until_text(local: datetime) -> str:
    return _("at %(time)s") % {"time": format_with_day(local)}


def _time_element(timestamp: datetime, kind: str, text: str) -> SafeString:
    return format_html(
        '<time datetime="{}" title="{}" data-{}>{}</time>',
        _iso_utc(timestamp),
        local_time.format_full(timestamp),
        kind,
        text,
    )


def _iso_utc(timestamp: datetime) -> str:
    return timestamp.astimezone(UTC).isoformat()
