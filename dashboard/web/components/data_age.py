"""How old the data of a page is, whether any is missing, and a hash of the page's structure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import Protocol

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Pipeline, Run, Stage
from dashboard.sync import schedule
from dashboard.sync.reports import coverage, freshness
from dashboard.sync.reports.read_totals import ReadTotals
from dashboard.texts.rich_text import to_text


class ReadStage(schedule.ReadTimes, Protocol):
    """What the age of data needs of a stage: a `Stage`, or some of its values."""

    @property
    def pk(self) -> int: ...


@dataclass(frozen=True, slots=True)
class DataAge:
    """How old the data of a page is."""

    synced_at: datetime | None
    is_stale: bool
    text: str | Promise = ""
    status_hint: str = ""  # about data missing from the page; details are on the status page
    incomplete_text: str = ""  # what has not been read yet; empty: coverage is complete
    # Hash of the values that determine the page's structure besides its runs: the stages, which of
    # them have been read, and the removal of their place. An open page that receives another hash
    # reloads its live region.
    structure_hash: str = ""
    # When it changes with time alone, at the earliest.
    changes_at: datetime | None = field(default=None, compare=False, repr=False)

    @property
    def stale_text(self) -> str:
        """The note that the data is out of date; empty if it is fresh, or another text says so."""
        if not self.is_stale or self.synced_at is None or self.status_hint:
            return ""
        return _("This data is out of date.")


EMPTY = DataAge(
    None,
    is_stale=True,
    text=gettext_lazy("No longer available."),
    structure_hash="nothing",
)


def stages_data_age(stages: Sequence[ReadStage]) -> DataAge:
    """Return the data age of `stages`: that of the oldest."""
    now = db_threads.now()
    structure_hash = _structure_hash(stages)
    with_flow = [stage for stage in stages if stage.has_flow is not False] or stages
    sync_times = [stage.synced_at for stage in with_flow if stage.synced_at is not None]
    is_stale = any(freshness.is_stale(stage.fresh_until, now) for stage in with_flow)
    if not sync_times:
        return DataAge(None, is_stale=True, text=_unread_text(), structure_hash=structure_hash)
    return DataAge(
        min(sync_times),
        is_stale=is_stale,
        structure_hash=structure_hash,
        changes_at=_next_change(stages, now),
    )


def place_data_age(pipeline: Pipeline, stages: Sequence[Stage]) -> DataAge:
    """Return the data age of some stages of a pipeline, including unread stages."""
    removal = _removal(pipeline)
    unread = coverage.measure_stages([] if any(removal) else stages, db_threads.now()).text
    return replace(
        stages_data_age(stages),
        incomplete_text=unread,
        structure_hash=_fingerprint((read_states(stages), removal)),
    )


def _removal(pipeline: Pipeline) -> tuple[datetime | None, datetime | None]:
    return pipeline.project.removed_at, pipeline.removed_at


def _next_change(stages: Sequence[ReadStage], now: datetime) -> datetime | None:
    """Return when the next of some stages becomes stale or counts as unread; None: none will."""
    limits = [
        limit
        for stage in stages
        for limit in (freshness.stale_at(stage.fresh_until), schedule.gap_opens_at(stage))
        if limit is not None and limit >= now
    ]
    return min(limits, default=None)


def _structure_hash(stages: Sequence[ReadStage]) -> str:
    return _fingerprint(read_states(stages))


def read_states(stages: Iterable[ReadStage]) -> list[tuple[int, bool | None, bool]]:
    """Return what decides the structure of a page that shows these stages: which were read."""
    return sorted((stage.pk, stage.has_flow, stage.synced_at is None) for stage in stages)


def _fingerprint(value: object) -> str:
    return blake2b(repr(value).encode(), digest_size=6).hexdigest()


def page_data_age(
    permissions: Permissions,
    totals: ReadTotals,
    shown_stages: Sequence[ReadStage] = (),
    *structure: object,
) -> DataAge:
    """Return the data age of a page about all stages, with the runs of `shown_stages`.

    It is that of the shown stages or, without any, of all. `totals` are those of all stages that
    the user may view; with `structure`, these values decide the page's structure.
    """
    age = stages_data_age(shown_stages) if shown_stages else _age_of_all(totals)
    if not totals.stages and not permissions.can_view_all:
        # Incomplete: their pipelines may not be listed yet, which is said instead.
        is_complete = totals.coverage.is_complete
        age = replace(age, text=str(freshness.no_access_message()) if is_complete else "")
    problems = freshness.SyncState(
        stages=totals.with_flow,
        stale=totals.stale,
        failing=totals.failing,
        failing_lists=totals.failing_lists,
        partial_lists=totals.partial + totals.partial_lists,
    )
    # Until stages are read, a page lacks runs, or shows that it does not know of any.
    read = totals.stages, totals.read, totals.without_flow, totals.with_flow_read
    return replace(
        age,
        is_stale=age.is_stale or totals.stale > 0,
        status_hint=to_text(freshness.problems_message(problems)),
        incomplete_text=totals.coverage.text,
        structure_hash=_fingerprint(structure or read),
        changes_at=min(filter(None, [age.changes_at, totals.next_gap_at]), default=None),
    )


def _age_of_all(totals: ReadTotals) -> DataAge:
    if totals.oldest_sync_at is None:
        return DataAge(None, is_stale=True, text=_unread_text())
    return DataAge(totals.oldest_sync_at, is_stale=totals.has_old_reads)


def _unread_text() -> str:
    return _("No data has been read from Northflank yet.")


def run_data_age(run: Run) -> DataAge:
    """Return the data age of one run."""
    stage = run.stage
    sync_times = [run.synced_at, run.detail_synced_at]
    synced_at = max(sync_time for sync_time in sync_times if sync_time is not None)
    is_stale = run.in_flight and freshness.is_stale(stage.fresh_until, db_threads.now())
    # The removal of the run itself comes with its card.
    removal = _removal(stage.pipeline)
    return DataAge(synced_at, is_stale=is_stale, structure_hash=_fingerprint(removal))


def list_data_age(first_page: object) -> DataAge:
    """Return the data age of a page that lists our own rows, which have their own times.

    New rows appear on `first_page` only, so it decides the structure of every page of the list.
    """
    return DataAge(None, is_stale=False, structure_hash=_fingerprint(first_page))
