"""What the status page shows: requests, workers, and how old each stage is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Rights
from dashboard.models import Budget, CatalogueSweep, Stage, Upstream, Worker
from dashboard.runs import durations
from dashboard.sync import coverage, freshness, leases, run_lookup, webhook_status
from dashboard.sync.run_lookup import Spent
from dashboard.sync.schedule import StageClass
from dashboard.sync.webhook_status import PushState
from dashboard.upstream import budget_store
from dashboard.web.components import run_row
from dashboard.web.http import lookup

MOST_STAGES = 100  # rows of the table; the rest is summed up by class


@dataclass(frozen=True, slots=True)
class Requests:
    """The hour's requests, as Northflank last told of them."""

    limit: int
    left: int
    ours: int
    others: int
    reserve: int
    resets_at: datetime | None  # None: the window has ended, the next request opens a full one
    refused_until: datetime | None
    refusals: int  # 429s in a row, each after the pause of the one before
    probing: bool  # the pause is over, and nothing was answered since
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class WorkerRow:
    name: str
    started_at: datetime
    beat_at: datetime
    alive: bool


@dataclass(frozen=True, slots=True)
class ListRow:
    """A list of the catalogue that can't be read, or only in part."""

    name: str
    text: str
    since: datetime | None
    next_at: datetime


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage: how old, and what is wrong."""

    project: str
    pipeline: str
    stage: str
    url: str
    kind: str
    synced_at: datetime | None
    late: bool
    every: str  # the promise, in words
    next_at: datetime | None  # None: now
    partial: str  # what of its list was not taken
    error: str
    error_since: datetime | None
    failures: int


@dataclass(frozen=True, slots=True)
class KindRow:
    """The stages of one class."""

    kind: str
    stages: int
    every: str
    oldest: datetime | None
    late: int
    unread: int  # not yet, or not since a long outage


@dataclass(frozen=True, slots=True)
class Status:
    """All that the page shows."""

    verdict: freshness.Verdict
    incomplete: str  # what was not looked at yet, as a sentence; empty: all was
    requests: Requests | None
    searches: Spent
    push: PushState
    workers: list[WorkerRow]
    lists: list[ListRow]
    stages: list[StageRow]
    kinds: list[KindRow]
    left_out: int


def of(rights: Rights, now: datetime) -> Status:
    """Gather the state of the mirror, and of those stages that somebody may see."""
    # Thousands of stages: five columns of all, and whole rows only of those that are listed.
    seen = Stage.objects.present().filter(rights.places())
    columns = "pk", "error", "promised_at", "synced_at", "has_flow", "left_out", "surplus"
    known = list(seen.values_list(*columns))
    kinds = leases.classes(seen, now)
    gaps = leases.gaps(seen, now)
    late = {
        pk
        for pk, _error, promised, *_rest in known
        if freshness.is_late(promised, now) and pk not in gaps
    }
    order = sorted(known, key=lambda one: _badness(*one, late=one[0] in late, now=now))
    sweeps = list(lookup.failing_lists(rights).select_related("project"))
    partial = list(lookup.partial_lists(rights).select_related("project"))
    workers = _workers(now)
    requests = _requests(now)
    trouble = Upstream.objects.exclude(error="").first()
    facts = freshness.Facts(
        stages=len(known),
        late=len(late),
        incomplete=coverage.load(seen, lookup.lists(rights), now).text,
        failing=sum(bool(error) for _pk, error, *_rest in known),
        lists_failing=len(sweeps),
        partial=len(partial) + sum(bool(left or more) for *_rest, left, more in known),
        workers=sum(worker.alive for worker in workers),
        heard_of=max((worker.beat_at for worker in workers), default=None),
        trouble=trouble.error_message if trouble else "",
        trouble_since=trouble.error_since if trouble else None,
        refused_until=requests.refused_until if requests else None,
        left=requests.left if requests else 0,
        limit=requests.limit if requests else 0,
        probing=requests.probing if requests else False,
        limited=not rights.sees_all,
    )
    listed = [pk for pk, *_rest in order[:MOST_STAGES]]
    return Status(
        verdict=freshness.verdict(facts),
        incomplete=facts.incomplete,
        requests=requests,
        searches=run_lookup.spent(),
        push=webhook_status.state(now),
        workers=workers,
        lists=[_list(sweep) for sweep in (*sweeps, *partial)],
        stages=_stages(listed, kinds, late, now),
        kinds=_kinds(kinds, late, gaps, {pk: synced for pk, _e, _p, synced, *_rest in known}),
        left_out=len(known) - len(listed),
    )


def _badness(
    _pk: int,
    error: str,
    promised_at: datetime | None,
    synced_at: datetime | None,
    has_flow: bool | None,
    left_out: int,
    surplus: int,
    *,
    late: bool,
    now: datetime,
) -> tuple[bool, bool, bool, bool, bool, datetime]:
    """Sort failing stages first, then late, partial and unread ones; without a flow last."""
    whole = not (left_out or surplus)
    return not error, not late, whole, has_flow is False, synced_at is not None, promised_at or now


def _requests(now: datetime) -> Requests | None:
    known = Budget.objects.first()
    if known is None:
        return None
    over = known.resets_at <= now
    refused = known.refused_until if known.refused_until and known.refused_until > now else None
    left = known.limit if over else known.remaining
    ours = 0 if over else known.ours
    return Requests(
        limit=known.limit,
        left=left,
        ours=ours,
        others=max(known.limit - left - ours, 0),
        reserve=budget_store.reserve_of(known.limit),
        resets_at=None if over else known.resets_at,
        refused_until=refused,
        refusals=known.refusals,
        probing=known.refusals > 0 and refused is None,
        seen_at=known.seen_at,
    )


def _workers(now: datetime) -> list[WorkerRow]:
    return [
        WorkerRow(one.name, one.started_at, one.beat_at, freshness.is_alive(one.beat_at, now))
        for one in Worker.objects.order_by("-beat_at", "name")
    ]


def _list(sweep: CatalogueSweep) -> ListRow:
    of_project = _("The pipelines of %(project)s") % {"project": sweep.project}
    name = of_project if sweep.project else _("The list of projects")
    text = sweep.error_message or freshness.partial(sweep.left_out, sweep.surplus)
    return ListRow(name, text, sweep.error_since, sweep.next_at)


def _stages(
    keys: Sequence[int], kinds: dict[int, StageClass], late: set[int], now: datetime
) -> list[StageRow]:
    found = Stage.objects.select_related("pipeline__project").in_bulk(keys)
    return [
        StageRow(
            project=stage.pipeline.project.name,
            pipeline=stage.pipeline.name,
            stage=stage.name,
            url=reverse("stage", args=run_row.place_args(stage)),
            kind=_in_words(kinds[stage.pk]),
            synced_at=stage.synced_at,
            late=stage.pk in late,
            every=durations.roughly(stage.promised_at - stage.synced_at)
            if stage.promised_at and stage.synced_at
            else "",
            next_at=stage.next_sync_at if stage.next_sync_at > now else None,
            partial=freshness.partial(stage.left_out, stage.surplus),
            error=stage.error_message,
            error_since=stage.error_since,
            failures=stage.failures,
        )
        for stage in (found[key] for key in keys if key in found)
    ]


def _kinds(
    kinds: dict[int, StageClass],
    late: set[int],
    gaps: set[int],
    synced: dict[int, datetime | None],
) -> list[KindRow]:
    count = Counter(kinds.values())
    late_ones = Counter(kinds[pk] for pk in late if pk in kinds)
    unread = Counter(kinds[pk] for pk in gaps if pk in kinds)
    oldest: dict[StageClass, datetime] = {}
    for pk, kind in kinds.items():
        at = synced.get(pk)
        if at is not None and (kind not in oldest or at < oldest[kind]):
            oldest[kind] = at
    return [
        KindRow(
            kind=_in_words(kind),
            stages=count[kind],
            every=durations.roughly(timedelta(seconds=kind.value)),
            oldest=oldest.get(kind),
            late=late_ones[kind],
            unread=unread[kind],
        )
        for kind in StageClass
        if count[kind]
    ]


def _in_words(kind: StageClass) -> str:
    return {
        StageClass.WATCHED: _("watched, with runs in flight"),
        StageClass.IN_FLIGHT: _("runs in flight"),
        StageClass.EXPECTED: _("watched"),
        StageClass.RECENT: _("recently changed"),
        StageClass.IDLE: _("idle"),
        StageClass.NO_FLOW: _("no release flow"),
    }[kind]
