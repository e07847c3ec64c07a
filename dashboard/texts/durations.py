"""Format durations for people."""

from datetime import timedelta

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.models.typical_duration import TypicalDuration

_UNIT_FORMATS = {
    "d": gettext_lazy("%(n)s d"),
    "h": gettext_lazy("%(n)s h"),
    "min": gettext_lazy("%(n)s min"),
    "s": gettext_lazy("%(n)s s"),
}

type _Amounts = tuple[tuple[int, str], ...]  # (number, unit), the larger unit first


def unit_formats() -> dict[str, str]:
    """Return the text template of each unit; times.js uses the same ones."""
    return {unit: str(text) for unit, text in _UNIT_FORMATS.items()}


def format_duration(span: timedelta) -> str:
    """Return a duration in at most two units: "41 s", "4 min 05 s", "2 h 05 min", "3 d 4 h"."""
    return _format_amounts(_two_units(max(round(span.total_seconds()), 0)))


def format_elapsed(span: timedelta) -> str:
    """Return an elapsed time, without seconds from 1 min on: "41 s", "18 min", "2 h 05 min"."""
    seconds = max(int(span.total_seconds()), 0)
    return _format_amounts(_drop_zero_unit(_two_units(seconds - seconds % 60 or seconds)))


def format_rounded(span: timedelta) -> str:
    """Return a rounded duration: "41 s", "7 min"; from 100 min in two units."""
    return _format_amounts(_rounded(span))


def format_typical(typical: TypicalDuration) -> str:
    """Return "usually 2 to 4 min", or "usually about 3 min" if both round to the same."""
    return _("usually %(time)s") % {"time": format_typical_range(typical)}


def format_typical_range(typical: TypicalDuration) -> str:
    """Return "2 to 4 min" or "50 s to 2 min"; "about 3 min" if both ends round to the same."""
    low, high = _rounded(typical.median), _rounded(typical.p95)
    if low == high:
        return _("about %(time)s") % {"time": _format_amounts(low)}
    is_same_unit = len(low) == len(high) == 1 and low[0][1] == high[0][1]
    values = {
        "least": low[0][0] if is_same_unit else _format_amounts(low),
        "most": _format_amounts(high),
    }
    return _("%(least)s to %(most)s") % values


def _rounded(span: timedelta) -> _Amounts:
    seconds = max(round(span.total_seconds()), 0)
    if seconds < 100:
        return ((seconds, "s"),)
    minutes = round(seconds / 60)
    if minutes < 100:
        return ((minutes, "min"),)
    return _drop_zero_unit(_two_units(60 * minutes))


def _two_units(seconds: int) -> _Amounts:
    if seconds < 60:
        return ((seconds, "s"),)
    if seconds < 3600:
        return (seconds // 60, "min"), (seconds % 60, "s")
    if seconds < 86400:
        return (seconds // 3600, "h"), (seconds % 3600 // 60, "min")
    return (seconds // 86400, "d"), (seconds % 86400 // 3600, "h")


def _drop_zero_unit(amounts: _Amounts) -> _Amounts:
    return tuple(amount for index, amount in enumerate(amounts) if index == 0 or amount[0])


def _format_amounts(amounts: _Amounts) -> str:
    # Minutes and seconds after another unit have two digits: counted, they stay in place.
    return " ".join(
        str(_UNIT_FORMATS[unit]) % {"n": f"{number:02}" if index and unit != "h" else number}
        for index, (number, unit) in enumerate(amounts)
    )
