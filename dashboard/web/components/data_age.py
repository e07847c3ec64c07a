"""How old the data of a page is, whether any is missing, and a hash of the page's structure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Run, Stage
from dashboard.sync import coverage, freshness, schedule
from dashboard.web.http import lookup


@dataclass(frozen=True, slots=True)
class DataAge:
    """How old the data of a page is."""

    synced_at: datetime | None
    is_stale: bool
    text: str | Promise = ""
    status_hint: str = ""  # about data missing from the page; details are on the status page
    incomplete_text: str = ""  # what has not been read yet; empty: coverage is complete
    # Hash of the values that determine the page's structure besides its runs: the stages, and which
    # of them have been read. An open page that receives another hash reloads its live region.
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


def stages_data_age(stages: Sequence[Stage]) -> DataAge:
    """Return the data age of `stages`: that of the oldest."""
    now = db_threads.now()
    structure_hash = _structure_hash(stages)
    with_flow = [stage for stage in stages if stage.has_flow is not False] or stages
    sync_times = [stage.synced_at for stage in with_flow if stage.synced_at is not None]
    is_stale = any(freshness.is_stale(stage.fresh_until, now) for stage in with_flow)
    if not sync_times:
        text = _("No data has been read from Northflank yet.")
        return DataAge(None, is_stale=True, text=text, structure_hash=structure_hash)
    return DataAge(
        min(sync_times),
        is_stale=is_stale,
        structure_hash=structure_hash,
        changes_at=_next_change(stages, now),
    )


def place_data_age(stages: Sequence[Stage]) -> DataAge:
    """Return the data age of the stages of a pipeline, or of one stage, including unread stages."""
    listed = [
        stage
        for stage in stages
        if stage.pipeline.removed_at is None and stage.pipeline.project.removed_at is None
    ]
    unread = coverage.measure_stages(listed, db_threads.now()).text
    return replace(stages_data_age(stages), incomplete_text=unread)


def _next_change(stages: Sequence[Stage], now: datetime) -> datetime | None:
    """Return when the next of some stages becomes stale or counts as unread; None: none will."""
    limits = [
        limit
        for stage in stages
        for limit in (freshness.stale_at(stage.fresh_until), schedule.gap_opens_at(stage))
        if limit is not None and limit >= now
    ]
    return min(limits, default=None)


def _structure_hash(stages: Sequence[Stage], *extra: object) -> str:
    stage_states = sorted((stage.pk, stage.has_flow, stage.synced_at is None) for stage in stages)
    return _fingerprint((stage_states, extra))


def _fingerprint(value: object) -> str:
    return blake2b(repr(value).encode(), digest_size=6).hexdigest()


def page_data_age(
    permissions: Permissions,
    stages: Sequence[Stage],
    *extra: object,
    shown_stages: Sequence[Stage] = (),
) -> DataAge:
    """Return the data age of a page about all `stages`, with runs of `shown_stages`.

    `stages` are all that the user may view; `extra` are further values that change the structure.
    """
    now = db_threads.now()
    with_flow = [stage for stage in stages if stage.has_flow is not False]
    sync_facts = freshness.SyncState(
        stages=len(with_flow),
        stale=sum(
            freshness.is_stale(stage.fresh_until, now) and schedule.find_gap(stage, now) is None
            for stage in with_flow
        ),
        failing=sum(bool(stage.error) for stage in with_flow),
        failing_lists=lookup.failing_sweeps(permissions).count(),
        partial_lists=sum(stage.is_partial for stage in with_flow)
        + lookup.partial_sweeps(permissions).count(),
    )
    shown_age = stages_data_age(shown_stages or stages)
    if not stages and not permissions.can_view_all:
        shown_age = replace(shown_age, text=freshness.no_access_message())
    return replace(
        shown_age,
        is_stale=shown_age.is_stale or sync_facts.stale > 0,
        status_hint=freshness.problems_message(sync_facts),
        incomplete_text=coverage.measure(stages, lookup.visible_sweeps(permissions), now).text,
        structure_hash=_structure_hash(stages, *extra),
        changes_at=_next_change(stages, now),
    )


def run_data_age(run: Run) -> DataAge:
    """Return the data age of one run."""
    stage = run.stage
    sync_times = [run.synced_at, run.detail_synced_at]
    synced_at = max(sync_time for sync_time in sync_times if sync_time is not None)
    if not run.in_flight:
        return DataAge(synced_at, is_stale=False)
    is_stale = freshness.is_stale(stage.fresh_until, db_threads.now())
    return DataAge(synced_at, is_stale=is_stale)


def board_data_age(
    permissions: Permissions, stages: Sequence[Stage], matching_pipelines: Sequence[int]
) -> DataAge:
    """Return the data age of the board, whose cells also show the errors of stages.

    `matching_pipelines` are the keys of those that a filter lists because of their runs.
    """
    errors = sorted((stage.pk, stage.error_message) for stage in stages if stage.error)
    return page_data_age(permissions, stages, errors, matching_pipelines)


def list_data_age(first_page: object) -> DataAge:
    """Return the data age of a page that lists our own rows, which have their own times.

    New rows appear on `first_page` only, so it decides the structure of every page of the list.
    """
    return DataAge(None, is_stale=False, structure_hash=_fingerprint(first_page))
