"""Runs as pages show them: prepared rows, rendered once per version and shared by all viewers."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from django.core.cache import cache
from django.template.loader import get_template
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from dashboard import abort_story, durations, statuses
from dashboard.access import Verdict
from dashboard.models import Abort, Run, Stage
from dashboard.models.runs import RunQuerySet

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


@dataclass(frozen=True, slots=True)
class AbortLine:
    """An abort in one line."""

    sentence: str
    tone: str
    by: str
    requested_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Row:
    """What templates need of a run; no rule is left to them."""

    run_id: str
    dom_id: str
    url: str
    abort_url: str
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
    step: str
    step_tone: str
    abort: AbortLine | None
    abortable: bool
    may_abort: bool
    why_not: str


def dom_id(run_id: str) -> str:
    """Return `run-<id>`, made safe for an id attribute and a selector."""
    if _PLAIN_ID.fullmatch(run_id):
        return f"run-{run_id}"
    return f"run-x-{blake2b(run_id.encode(), digest_size=12).hexdigest()}"


def place_args(stage: Stage) -> list[str]:
    """Return the parts of a stage's address."""
    return [stage.pipeline.project.slug, stage.pipeline.slug, stage.name.lower()]


def row(run: Run, verdict: Verdict, abort: Abort | None) -> Row:
    """Prepare a run for templates; `abort` is its latest."""
    stage = run.stage
    pipeline = stage.pipeline
    look = statuses.of_run(run.status)
    place = place_args(stage)
    began = run.started_at or run.created_at
    under_way = abort is not None and abort.settled_at is None
    return Row(
        run_id=run.run_id,
        dom_id=dom_id(run.run_id),
        url=reverse("run", args=[*place, run.run_id]),
        abort_url=reverse("abort", args=[*place, run.run_id]),
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
        step=run.step if run.in_flight else "",
        step_tone=look.tone,
        abort=abort_line(abort) if abort is not None else None,
        abortable=run.in_flight and not under_way and run.status != "aborting",
        may_abort=verdict.allowed,
        why_not=verdict.why_not,
    )


def abort_line(abort: Abort) -> AbortLine:
    """Prepare an abort for templates."""
    story = abort_story.of(abort)
    return AbortLine(
        sentence=story.sentence,
        tone=story.tone,
        by=abort.username,
        requested_at=abort.requested_at,
        reason=abort.reason,
    )


def latest_aborts(runs: Iterable[Run]) -> dict[int, Abort]:
    """Return the latest abort of each run that has one, by the run's key."""
    found = Abort.objects.filter(run__in=[run.pk for run in runs]).order_by("requested_at", "pk")
    return {abort.run_id: abort for abort in found}


def html(run: Run, verdict: Verdict, abort: Abort | None) -> SafeString:
    """Render one run's table row."""
    template = get_template("runs.html#run-row")
    return mark_safe(template.render({"row": row(run, verdict, abort)}).strip())


def html_of(runs: RunQuerySet, verdict: Verdict) -> dict[int, SafeString]:
    """Render the table rows of `runs`, in their order and by their keys.

    Only what changed since it was last rendered is loaded and rendered.
    """
    wanted: Sequence[tuple[int, int]] = list(runs.values_list("pk", "version"))
    keys = {pk: _key(pk, version, verdict) for pk, version in wanted}
    ready = cache.get_many(keys.values())
    missing = [pk for pk, key in keys.items() if key not in ready]
    loaded = Run.objects.filter(pk__in=missing).with_place().without_detail() if missing else ()
    fresh = _rendered(loaded, verdict)
    found = {pk: fresh.get(pk) or ready.get(key) for pk, key in keys.items()}
    return {pk: mark_safe(row) for pk, row in found.items() if row}


def html_of_loaded(runs: Collection[Run], verdict: Verdict) -> dict[int, SafeString]:
    """Render the table rows of runs that are loaded with their place, by their keys."""
    keys = {run.pk: _key(run.pk, run.version, verdict) for run in runs}
    ready = cache.get_many(keys.values())
    fresh = _rendered([run for run in runs if keys[run.pk] not in ready], verdict)
    return {pk: mark_safe(fresh.get(pk) or ready[key]) for pk, key in keys.items()}


def _key(pk: int, version: int, verdict: Verdict) -> str:
    # Per person a row differs in the abort control only.
    audience = "may" if verdict.allowed else blake2b(verdict.why_not.encode()).hexdigest()[:8]
    return f"row:{pk}:{version}:{audience}"


def _rendered(runs: Iterable[Run], verdict: Verdict) -> dict[int, SafeString]:
    runs = list(runs)
    aborts = latest_aborts(runs) if runs else {}
    fresh = {run.pk: html(run, verdict, aborts.get(run.pk)) for run in runs}
    # Its version was read with the rest of it: a row is never kept under an older number.
    cache.set_many({_key(run.pk, run.version, verdict): fresh[run.pk] for run in runs})
    return fresh
