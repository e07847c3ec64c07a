"""Durations as people say them."""

from datetime import timedelta

from django.utils.translation import gettext as _

from dashboard.models.typical_duration import Usual

type _Counted = tuple[tuple[int, str], ...]  # numbers of units, the larger one first


def units() -> dict[str, str]:
    """Return how a number of each unit is written; app.js counts with the same."""
    return {"d": _("%(n)s d"), "h": _("%(n)s h"), "min": _("%(n)s min"), "s": _("%(n)s s")}


def in_words(span: timedelta) -> str:
    """Return a duration in at most two units: "41 s", "4 min 12 s", "2 h 5 min", "3 d 4 h"."""
    return _written(_in_two(max(round(span.total_seconds()), 0)))


def in_brief(span: timedelta) -> str:
    """Return the same without a second unit of which there is nothing: "3 min", "1 h"."""
    return _written(_without_nothing(_in_two(max(round(span.total_seconds()), 0))))


def so_far(span: timedelta) -> str:
    """Return how long something has gone on: "41 s", "18 min", "2 h 5 min", "3 d 4 h"."""
    seconds = max(int(span.total_seconds()), 0)
    return _written(_without_nothing(_in_two(seconds - seconds % 60 or seconds)))


def roughly(span: timedelta) -> str:
    """Return a duration as people remember it: "41 s", "7 min"; from 100 min in two units."""
    return _written(_roughly(span))


def hours(count: int) -> str:
    """Return a number of hours, however many: "48 h"."""
    return _written(((count, "h"),))


def between(least: timedelta, most: timedelta) -> str:
    """Return a range of durations: "6 to 9 min", "50 s to 2 min"; one where both read the same."""
    low, high = _roughly(least), _roughly(most)
    if low == high:
        return _written(low)
    finer = _FINER.get(low, low)
    if _units(finer) == _units(high):
        low = finer
    alike = len(low) == 1 and _units(low) == _units(high)
    said = {"least": low[0][0] if alike else _written(low), "most": _written(high)}
    return _("%(least)s to %(most)s") % said


def usually(usual: Usual) -> str:
    """Say what is usual: "usually 2 to 4 min"; "usually about 3 min" where both come to that."""
    return of_usual(usual, _("usually %(time)s"), _("usually about %(time)s"))


def of_usual(usual: Usual, within: str, about: str) -> str:
    """Say what is usual in the words of `within` or, where that is no range, of `about`."""
    one = _roughly(usual.median) == _roughly(usual.p95)
    return (about if one else within) % {"time": between(usual.median, usual.p95)}


# As it reads beside more of the smaller unit.
_FINER: dict[_Counted, _Counted] = {((1, "min"),): ((60, "s"),), ((1, "h"),): ((60, "min"),)}


def _roughly(span: timedelta) -> _Counted:
    seconds = max(round(span.total_seconds()), 0)
    if seconds < 100 and seconds != 60:
        return ((seconds, "s"),)
    minutes = round(seconds / 60)
    if minutes < 100 and minutes != 60:
        return ((minutes, "min"),)
    return _without_nothing(_in_two(60 * minutes))


def _in_two(seconds: int) -> _Counted:
    if seconds < 60:
        return ((seconds, "s"),)
    if seconds < 3600:
        return (seconds // 60, "min"), (seconds % 60, "s")
    if seconds < 86400:
        return (seconds // 3600, "h"), (seconds % 3600 // 60, "min")
    return (seconds // 86400, "d"), (seconds % 86400 // 3600, "h")


def _without_nothing(counted: _Counted) -> _Counted:
    return tuple(each for place, each in enumerate(counted) if place == 0 or each[0])


def _units(counted: _Counted) -> list[str]:
    return [unit for _number, unit in counted]


def _written(counted: _Counted) -> str:
    known = units()
    return " ".join(known[unit] % {"n": number} for number, unit in counted)
