"""Template tags of the dashboard."""

from datetime import datetime

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html, format_html_join, json_script
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from dashboard.aborts.messages import At, Said, with_day
from dashboard.runs import durations
from dashboard.runs import summary as run_summary
from dashboard.runs.summary import Name, Parts, Since, Until
from dashboard.web.components.incident_summary import Link
from dashboard.web.components.tab_title import Icon
from dashboard.web.http import timezones

register = template.Library()


@register.simple_tag
def clock(when: datetime) -> SafeString:
    """Render a point in time as it is on the clock, with its day where that is not today."""
    local = timezone.localtime(when)
    today = local.date() == timezone.localdate()
    return _time(when, "clock", f"{local:%H:%M:%S}" if today else with_day(local))


@register.simple_tag
def kept_clock(when: datetime) -> SafeString:
    """Render a point in time where the text is kept: with its day, which app.js drops today."""
    return _time(when, "clock", with_day(timezone.localtime(when)))


@register.simple_tag
def moment(when: datetime) -> SafeString:
    """Render a point in time, complete without JavaScript; app.js adds how long ago it was."""
    return _time(when, "moment", with_day(timezone.localtime(when)))


@register.simple_tag
def since(when: datetime) -> SafeString:
    """Render how long something has gone on: app.js counts; without it, since when."""
    return _time(when, "since", _since(timezone.localtime(when)))


@register.simple_tag
def until(when: datetime) -> SafeString:
    """Render when something is due: app.js counts down; without it, at what time."""
    return _time(when, "until", _until(timezone.localtime(when)))


@register.simple_tag
def counting_words() -> SafeString:
    """Render, as data, the words with which app.js writes times that go on."""
    words = durations.units() | {
        "for": _("for %(time)s"),
        "in": _("in %(time)s"),
        "ago": _("%(time)s ago"),
        "due": _("due now"),
    }
    return json_script(words, "words")


@register.simple_tag
def icon(state: str) -> str:
    """Return the address of a tab's icon; that of a calm tab where a page has no state."""
    return static(f"icons/{state or Icon.CALM}.svg")


@register.simple_tag
def told(parts: Parts | Said, at: datetime | None = None) -> SafeString:
    """Render a text whose times app.js lets go on; without it they read as they do `at` a time.

    Where that is None they are on the clock, and stay true as long as the text is kept.
    """
    if isinstance(parts, str):
        parts = (parts,)
    return format_html_join("", "{}", ((_part(part, at),) for part in parts))


def _part(part: str | Since | Until | At, at: datetime | None) -> str:
    if isinstance(part, At):
        return _time(part.at, "clock", str(part))
    if isinstance(part, Since | Until):
        local = timezone.localtime(part.at)
        if isinstance(part, Since):
            words = run_summary.in_words(part, at) if at else _since(local)
            return _time(part.at, "since data-words", words)
        return _time(part.at, "until", run_summary.in_words(part, at) if at else _until(local))
    if isinstance(part, Link):
        return format_html('<a href="{}" data-whole>{}</a>', part, part)
    return format_html("<bdi>{}</bdi>", part) if isinstance(part, Name) else part


def _since(local: datetime) -> str:
    return _("since %(time)s") % {"time": with_day(local)}


def _until(local: datetime) -> str:
    return _("at %(time)s") % {"time": with_day(local)}


def _time(when: datetime, kind: str, text: str) -> SafeString:
    local = timezone.localtime(when)
    return format_html(
        '<time datetime="{}" title="{}" data-{}>{}</time>',
        when.isoformat(),
        f"{local:%Y-%m-%d %H:%M:%S} {timezones.label(local)}",
        kind,
        text,
    )
