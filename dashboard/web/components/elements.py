"""Elements that all pages share: times, glyphs and rich text. Both template engines use them.

Every time on a page is a <time> element: its text and title are in the deployment's time zone, from
which times.js rewrites them in the zone that the user chose.
"""

from datetime import UTC, datetime
from functools import cache

from django.utils import timezone
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from dashboard.texts import local_time
from dashboard.texts.local_time import format_with_day
from dashboard.texts.rich_text import (
    ClockTime,
    Countdown,
    Elapsed,
    ExternalText,
    Link,
    Part,
    RichText,
    format_time_part,
    parts,
)

# Embeddings, overrides and isolates of the bidirectional algorithm, with their ends.
_DIRECTIONS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def attribute(text: object) -> str:
    """Return a text for an attribute, a title or a text to copy, where no <bdi> can isolate it.

    Without the controls of direction in a name, which would turn around what follows it.
    """
    cleaned = str(text).translate(_DIRECTIONS)
    return mark_safe(cleaned) if hasattr(text, "__html__") else cleaned  # noqa: S308  # as it was


def age(timestamp: datetime) -> SafeString:
    """Render the time of a read; times.js counts its age, and says so while it is live."""
    local = timezone.localtime(timestamp)
    text = _("As of %(time)s") % {"time": _clock_text(local)}
    return _time_element(local, f'age data-live="{_("Live")}"', text)


def clock(timestamp: datetime) -> SafeString:
    """Render a clock time; with its day unless that is today."""
    local = timezone.localtime(timestamp)
    return _time_element(local, "clock", _clock_text(local))


def dated_clock(timestamp: datetime) -> SafeString:
    """Render a clock time for stored text, with its day, which times.js removes if it is today."""
    local = timezone.localtime(timestamp)
    return _time_element(local, "clock", format_with_day(local))


def full_time(timestamp: datetime) -> SafeString:
    """Render a date, time and zone for SVG titles, since a title can't have a tooltip."""
    return format_html(
        '<time datetime="{}" data-full>{}</time>',
        iso_utc(timestamp),
        local_time.format_full(timestamp),
    )


def time_ago(timestamp: datetime, *, brief: bool = False) -> SafeString:
    """Render a date and time, complete without JavaScript; times.js adds how long ago it was.

    `brief`: in its place times.js shows the age alone, in one unit.
    """
    local = timezone.localtime(timestamp)
    return _time_element(local, 'ago="brief"' if brief else "ago", format_with_day(local))


def since(timestamp: datetime) -> SafeString:
    """Render an elapsed time, counted by times.js; without JavaScript, the start time."""
    local = timezone.localtime(timestamp)
    return _time_element(local, "since", _since_text(local))


def until(timestamp: datetime) -> SafeString:
    """Render a countdown, counted by times.js; without JavaScript, the due time."""
    local = timezone.localtime(timestamp)
    return _time_element(local, "until", _until_text(local))


@cache  # there are few names, all of them ours
def icon(name: str) -> SafeString:
    """Render a glyph of components/icons.html, placed beside the text it illustrates."""
    return format_html('<svg class="glyph" aria-hidden="true"><use href="#g-{}"></use></svg>', name)


def rich_text(text: RichText, now: datetime | None = None) -> SafeString:
    """Render rich text; times.js keeps its times current.

    Without JavaScript its times are as of `now`. If that is None they are clock times, which stay
    correct in stored text.
    """
    html = "".join(conditional_escape(_render_part(part, now)) for part in parts(text))
    return mark_safe(html)  # noqa: S308 - each part is escaped


def iso_utc(timestamp: datetime) -> str:
    """Return a time for an attribute that scripts read, in ISO 8601 and UTC."""
    return timestamp.astimezone(UTC).isoformat()


def _render_part(part: Part, now: datetime | None) -> str:
    if isinstance(part, ClockTime):
        return _time_element(timezone.localtime(part.at), "clock", str(part))
    if isinstance(part, Elapsed | Countdown):
        local = timezone.localtime(part.at)
        if isinstance(part, Elapsed):
            text = format_time_part(part, now) if now else _since_text(local)
            return _time_element(local, "since data-sentence", text)
        return _time_element(
            local, "until", format_time_part(part, now) if now else _until_text(local)
        )
    if isinstance(part, Link):
        return format_html('<a href="{}" data-absolute-url>{}</a>', part, part)
    return format_html("<bdi>{}</bdi>", part) if isinstance(part, ExternalText) else part


def _clock_text(local: datetime) -> str:
    is_today = local.date() == timezone.now().astimezone(local.tzinfo).date()
    return local_time.format_time(local) if is_today else format_with_day(local)


def _since_text(local: datetime) -> str:
    return _("since %(time)s") % {"time": format_with_day(local)}


def _until_text(local: datetime) -> str:
    return _("at %(time)s") % {"time": format_with_day(local)}


def _time_element(local: datetime, kind: str, text: str) -> SafeString:
    # A page has hundreds: format_html takes twice as long. Of a datetime's parts none is markup.
    title = local_time.format_local(local)
    return mark_safe(  # noqa: S308
        f'<time datetime="{iso_utc(local)}" title="{title}" data-{kind}>'
        f"{conditional_escape(text)}</time>"
    )
