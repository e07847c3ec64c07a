"""Runs as pages show them: prepared rows, rendered once per version and shared by all viewers.

All who read times in one zone share them; the cache's size bounds how many are kept.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from django.core.cache import cache
from django.template.loader import get_template
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe

from dashboard.aborts import messages as abort_messages
from dashboard.aborts.severity import Level
from dashboard.accounts.permissions import Rights, Verdict
from dashboard.db.threads import now
from dashboard.models import Abort, Looking, Run, Stage
from dashboard.models.runs import RunQuerySet
from dashboard.runs import abort_clock, acknowledgements, durations, overdue_messages, statuses
from dashboard.runs.overdue import Clock
from dashboard.runs.overdue_messages import Story
from dashboard.runs.summary import Parts, short
from dashboard.web.components import acknowledged_by, progress_bar
from dashboard.web.components.acknowledged_by import Lookers
from dashboard.web.components.progress_bar import Pace

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


@dataclass(frozen=True, slots=True)
class AbortLine:
    """An abort in one line."""

    story: abort_messages.Story
    by: str  # empty: somebody elsewhere
    requested_at: datetime
    reason: str
    since: datetime | None  # while it goes on: from when its clock counts
    at_least: bool = False  # it may have begun before that


@dataclass(frozen=True, slots=True)
class Row:
    """What templates need of a run; no rule is left to them."""

    key: int
    run_id: str
    dom_id: str
    url: str
    abort_url: str
    look_url: str
    dismiss_url: str
    title: str
    project: str
    pipeline: str
    stage: str
    pipeline_url: str
    stage_url: str
    status: str
    word: str
    sentence: str
    tone: str
    glyph: str
    in_flight: bool
    concluded: bool
    gone: bool
    created_at: datetime
    started_at: datetime | None
    concluded_at: datetime | None
    took: str
    pace: Pace | None  # while it is in flight and its usual is known
    late: Story | None  # where it is overdue
    step: str
    short: Parts  # at which step, for how long, and how long it usually is
    step_tone: str
    abort: AbortLine | None
    lookers: Lookers | None
    abortable: bool
    selectable: bool  # to be aborted with others: nobody is aborting it
    aborting_level: int  # of escalation.Level
    again: bool  # an abort under way is so long overdue that it can be tried again
    may_abort: bool
    why_not: str

    @property
    def overdue(self) -> int:
        """How far it is overdue; 0 where it is not."""
        return self.late.level if self.late else 0


def dom_id(run_id: str) -> str:
    """Return `run-<id>`, made safe for an id attribute and a selector."""
    if _PLAIN_ID.fullmatch(run_id):
        return f"run-{run_id}"
    return f"run-x-{blake2b(run_id.encode(), digest_size=12).hexdigest()}"


def place_args(stage: Stage) -> list[str]:
    """Return the parts of a stage's address."""
    return [stage.pipeline.project.slug, stage.pipeline.slug, stage.name.lower()]


def row(
    run: Run,
    verdict: Verdict,
    abort: Abort | None,
    clocks: Sequence[Clock] = (),
    looks: Sequence[Looking] = (),
) -> Row:
    """Prepare a run for templates.

    `abort` is its latest, `clocks` tell of its usual, `looks` of those who look at it now.
    """
    stage = run.stage
    pipeline = stage.pipeline
    look = statuses.of_run(run.status, gone=run.is_gone)
    place = place_args(stage)
    began = run.started_at or run.created_at
    aborting = run.status == "aborting" or (abort is not None and abort.settled_at is None)
    waits = abort.waits if abort is not None and abort.settled_at is None else aborting
    again = run.in_flight and waits and run.aborting_level >= Level.RED
    doubtful = abort is not None and abort.is_doubtful and run.status != "aborting"
    return Row(
        key=run.pk,
        run_id=run.run_id,
        dom_id=dom_id(run.run_id),
        url=reverse("run", args=[*place, run.run_id]),
        abort_url=reverse("abort", args=[*place, run.run_id]),
        look_url=reverse("look", args=[*place, run.run_id]),
        dismiss_url=reverse("dismiss", args=[*place, run.run_id]),
        title=run.title,
        project=pipeline.project.name,
        pipeline=pipeline.name,
        stage=stage.name,
        pipeline_url=reverse("pipeline", args=place[:2]),
        stage_url=reverse("stage", args=place),
        status=run.status,
        word=look.word,
        sentence=look.sentence,
        tone=look.tone,
        glyph=look.glyph,
        in_flight=run.in_flight,
        concluded=run.concluded,
        gone=run.gone_at is not None,
        created_at=run.created_at,
        started_at=run.started_at,
        concluded_at=run.concluded_at,
        took=durations.in_words(run.concluded_at - began) if run.concluded_at else "",
        pace=progress_bar.of(run, clocks),
        late=overdue_messages.of(run.overdue, run.overdue_why, clocks) if run.in_flight else None,
        step=run.step if run.in_flight else "",
        short=short(run, clocks),
        step_tone=look.tone,
        abort=_abort_line(abort, run),
        lookers=acknowledged_by.of(looks),
        abortable=run.in_flight and (again or doubtful or not aborting),
        selectable=run.in_flight and not aborting,
        aborting_level=run.aborting_level,
        again=again,
        may_abort=verdict.allowed,
        why_not=verdict.why_not,
    )


def _abort_line(abort: Abort | None, run: Run) -> AbortLine | None:
    clock = abort_clock.since(run, abort)
    if abort_messages.is_elsewhere(abort, run) and clock is not None:
        story = abort_messages.elsewhere(run)
        return AbortLine(story, "", clock.at, "", clock.at, clock.at_least)
    if abort is None:
        return None
    under_way = clock if abort.settled_at is None else None
    story = abort_messages.of(abort, run)
    return AbortLine(
        story=story,
        by=abort.username,
        requested_at=abort.requested_at,
        reason=abort.reason,
        since=under_way.at if under_way else None,
        at_least=under_way is not None and under_way.at_least,
    )


def latest_aborts(runs: Iterable[Run]) -> dict[int, Abort]:
    """Return the latest abort of each run that has one, by the run's key."""
    found = Abort.objects.filter(run__in=[run.pk for run in runs]).order_by("pk")
    return {abort.run_id: abort for abort in found}


def html(
    run: Run,
    verdict: Verdict,
    abort: Abort | None,
    clocks: Sequence[Clock] = (),
    looks: Sequence[Looking] = (),
) -> SafeString:
    """Render one run's table row."""
    template = get_template("runs.html#run-row")
    return mark_safe(template.render({"row": row(run, verdict, abort, clocks, looks)}).strip())


def html_of(runs: RunQuerySet, rights: Rights) -> dict[int, SafeString]:
    """Render the table rows of `runs`, in their order and by their keys.

    Only what changed since it was last rendered is loaded and rendered.
    """
    return html_of_each([runs], rights)[0]


def html_of_each(tables: Iterable[RunQuerySet], rights: Rights) -> list[dict[int, SafeString]]:
    """Render the table rows of several tables as `html_of` does, loading for all of them at once.

    A run stands in the first of the tables that has it: it may have gone from one to another while
    they were read.
    """
    place = "stage__pipeline__project", "stage__name"
    keys: dict[int, str] = {}
    in_order: list[list[int]] = []
    for table in tables:
        wanted: Sequence[tuple[int, int, int, str]] = list(
            table.values_list("pk", "version", *place)
        )
        new = {
            pk: _key(pk, version, rights.verdict(project, stage))
            for pk, version, project, stage in wanted
            if pk not in keys
        }
        keys |= new
        in_order.append(list(new))
    ready = cache.get_many(keys.values())
    missing = [pk for pk, key in keys.items() if key not in ready]
    loaded = Run.objects.filter(pk__in=missing).with_place().without_detail() if missing else ()
    fresh = _rendered(loaded, rights)
    found = {pk: fresh.get(pk) or ready.get(key) for pk, key in keys.items()}
    return [{pk: mark_safe(row) for pk in table if (row := found[pk])} for table in in_order]


def html_of_loaded(runs: Collection[Run], rights: Rights) -> dict[int, SafeString]:
    """Render the table rows of runs that are loaded with their place, by their keys."""
    keys = {run.pk: _key(run.pk, run.version, rights.may_abort(run.stage)) for run in runs}
    ready = cache.get_many(keys.values())
    fresh = _rendered([run for run in runs if keys[run.pk] not in ready], rights)
    return {pk: mark_safe(fresh.get(pk) or ready[key]) for pk, key in keys.items()}


def _key(pk: int, version: int, verdict: Verdict) -> str:
    # Per person a row differs in the abort control only: all with one verdict share it.
    audience = "may" if verdict.allowed else blake2b(verdict.why_not.encode()).hexdigest()[:8]
    zone = timezone.get_current_timezone_name()
    return f"row:{pk}:{version}:{audience}:{zone}"


def _rendered(runs: Iterable[Run], rights: Rights) -> dict[int, SafeString]:
    runs = list(runs)
    aborts = latest_aborts(runs) if runs else {}
    clocks = progress_bar.clocks_of(runs)
    looks = acknowledgements.now_at(runs, now())
    fresh: dict[int, SafeString] = {}
    kept: dict[str, SafeString] = {}
    for run in runs:
        verdict = rights.may_abort(run.stage)
        told = clocks.get(run.pk, ()), looks.get(run.pk, ())
        fresh[run.pk] = html(run, verdict, aborts.get(run.pk), *told)
        # Its version was read with the rest of it: a row is never kept under an older number.
        kept[_key(run.pk, run.version, verdict)] = fresh[run.pk]
    cache.set_many(kept)
    return fresh
