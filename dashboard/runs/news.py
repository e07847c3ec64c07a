"""What happened to runs since a time: which started, ended, were aborted by whom, became overdue.

What counts is when it was read, not when it happened: what is read late, as after an outage of
Northflank, is news to who was here before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from operator import itemgetter

from django.db.models import BigIntegerField, Case, CharField, DateTimeField, Q, Value, When
from django.db.models.functions import Coalesce
from django.utils.translation import ngettext

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import Parameter, PreparedQuery
from dashboard.models import Abort, Run, Stage
from dashboard.models.runs import RunQuerySet
from dashboard.texts.rich_text import ExternalText, Message, MessageTable

MAX_AGE = timedelta(days=7)  # what was read longer ago is no news; runs are kept for as long
MAX_CHANGED = 1_000  # runs; of more, those that changed last
# What happened longer before is no news when it is read first: the list of a new stage may be years
# old.
MAX_DELAY = timedelta(days=1)
MAX_READ_TIME = timedelta(seconds=10)  # a read is dated by its request, and stored after the answer
_text = MessageTable(
    {
        "failed": lambda n: ngettext("%(n)d failed", "%(n)d failed", n),
        "overdue": lambda n: ngettext("%(n)d became overdue", "%(n)d became overdue", n),
        "aborted_by": lambda n: ngettext("%(n)d aborted by %(who)s", "%(n)d aborted by %(who)s", n),
        "aborted_outside": lambda n: ngettext(
            "%(n)d aborted outside this dashboard", "%(n)d aborted outside this dashboard", n
        ),
        "succeeded": lambda n: ngettext("%(n)d succeeded", "%(n)d succeeded", n),
        "otherwise": lambda n: ngettext("%(n)d ended otherwise", "%(n)d ended otherwise", n),
        "started": lambda n: ngettext("%(n)d started", "%(n)d started", n),
    }
)
_OUTCOMES = {"failure": "failed", "aborted": "aborted", "success": "succeeded"}  # by status


@dataclass(frozen=True, slots=True)
class News:
    """Runs to which the same happened: how many and what, and their keys.

    The latest first, by their end or, if they have not ended, their start.
    """

    text: Message
    runs: list[int]

    @property
    def leaves_status_open(self) -> bool:
        """Whether the text does not say how the runs stand."""
        return self.text.key in {"overdue", "otherwise", "started"}


@dataclass(frozen=True, slots=True)
class AllNews:
    """All that happened, the most urgent first."""

    news: list[News]
    is_cut: bool  # more than MAX_CHANGED runs have changed


def load(permissions: Permissions, version: int, since: datetime) -> AllNews:
    """Return what happened since a time to visible runs that changed after `version`."""
    limit = _limit_query().fetch(version=version)
    rows = _kinds_query().fetch(version=limit[0][0] if limit else version, since=since)
    # Not with the runs: SQLite would read all runs of these stages.
    stages = Stage.objects.filter(
        permissions.stage_filter(), pk__in={stage for _, stage, *_ in rows}
    )
    visible = set(stages.values_list("pk", flat=True))
    by_kind: dict[str, list[int]] = {}
    for pk, stage, _at, *kinds in sorted(rows, key=itemgetter(2), reverse=True):
        for kind in filter(None, kinds if stage in visible else ()):
            by_kind.setdefault(kind, []).append(pk)
    return AllNews(list(_sorted_news(by_kind)), is_cut=bool(limit))


@cache
def _limit_query() -> PreparedQuery:
    """Return the query for the version after which MAX_CHANGED runs have changed, if more have."""
    return PreparedQuery(_changed().values_list("version")[MAX_CHANGED : MAX_CHANGED + 1])


def _changed() -> RunQuerySet:
    version = Parameter("version", BigIntegerField())
    return Run.objects.filter(version__gt=version).order_by("-version")


@cache
def _kinds_query() -> PreparedQuery:
    """Return the query for runs to which something happened: key, stage, time, and kinds or ""."""
    since = Parameter("since", DateTimeField())
    read_after, happened_after = since - MAX_READ_TIME, since - MAX_DELAY
    is_recent = Q(started_at__gt=read_after) | Q(first_synced_at__gt=read_after)
    started = Q(is_recent, started_at__gt=happened_after)
    became_overdue = Q(overdue_since__gt=read_after)
    ended = Q(concluded=True, status_since__gt=read_after, ended_at__gt=happened_after)
    removed = Q(concluded=False, removed_at__gt=read_after)
    outcomes = [When(ended & Q(status=name), then=Value(kind)) for name, kind in _OUTCOMES.items()]
    return PreparedQuery(
        _changed()
        .filter(started | became_overdue | ended | removed)
        .values_list(
            "pk",
            "stage",
            Coalesce("ended_at", "started_at", "created_at"),
            _case(*outcomes, When(ended | removed, then=Value("otherwise"))),
            _case(When(became_overdue, then=Value("overdue"))),
            _case(When(started, then=Value("started"))),
        )
    )


def _case(*cases: When) -> Case:
    return Case(*cases, default=Value(""), output_field=CharField())


def _sorted_news(by_kind: dict[str, list[int]]) -> Iterator[News]:
    for kind in ("failed", "overdue", "aborted", "otherwise", "succeeded", "started"):
        if (runs := by_kind.get(kind)) is None:
            continue
        if kind == "aborted":
            yield from _aborted(runs)
        else:
            yield News(_text(kind, n=len(runs)), runs)


def _aborted(runs: list[int]) -> Iterator[News]:
    """Yield the aborted runs by who aborted them, by their latest abort that had an effect."""
    aborts = Abort.objects.accepted_or_aborted().filter(run__in=runs).order_by("pk")
    names: dict[int, str] = dict(aborts.values_list("run_id", "username"))
    by_name: dict[str, list[int]] = {}
    for run in runs:
        by_name.setdefault(names.get(run, ""), []).append(run)
    outside = by_name.pop("", [])
    for name in sorted(by_name, key=lambda name: len(by_name[name]), reverse=True):
        yield News(_text("aborted_by", n=len(by_name[name]), who=ExternalText(name)), by_name[name])
    if outside:
        yield News(_text("aborted_outside", n=len(outside)), outside)
