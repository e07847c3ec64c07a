"""How old the data of a page is, within what time new runs show, and what is wrong with reading."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Protocol

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.models import Pipeline, Run, Stage
from dashboard.sync import schedule
from dashboard.sync.reports import report
from dashboard.sync.reports.report import Report
from dashboard.sync.reports.sync_state import SyncHealth, SyncState
from dashboard.texts import durations
from dashboard.texts.rich_text import Message, MessageTable, to_text

_LONG = timedelta(minutes=1)  # until new runs show: what takes less needs no mention
_text = MessageTable({"new_runs": gettext_lazy("New runs within %(time)s")})


class ReadStage(schedule.ReadTimes, Protocol):
    """What the age of data needs of a stage: a `Stage`, or some of its values."""

    @property
    def pk(self) -> int: ...


@dataclass(frozen=True, slots=True)
class DataAge:
    """How old the data of a page is."""

    synced_at: datetime | None
    is_stale: bool
    text: Message | str | Promise = ""
    status_hint: str = ""  # about data missing from the page; details are on Health
    incomplete_text: str = ""  # what has not been read yet; empty: coverage is complete
    # Within how many seconds the page's new runs show as planned; None: not known.
    new_runs_within: int | None = None
    # Whether that is all there is to say: else the age of what is read matters more.
    may_lack_runs: bool = True
    problem: SyncHealth | None = None  # why reading is paused
    # Hash of the values that determine the page's structure besides its runs: the stages, which of
    # them have been read, and the removal of their place. An open page that receives another hash
    # reloads its live region.
    structure_hash: str = ""

    @property
    def stale_text(self) -> str:
        """The note that the data is out of date; empty if it is fresh, or another text says so."""
        if not self.is_stale or self.synced_at is None or self.status_hint or self.problem:
            return ""
        return _("This data is out of date.")

    @property
    def is_behind(self) -> bool:
        """Whether reading has fallen behind the plan, or pauses."""
        return self.is_stale or self.problem is not None

    @property
    def new_runs_text(self) -> Message | str:
        """That new runs show only after more than a minute; empty: the age says it all."""
        within = self.new_runs_within
        if self.is_behind or not self.may_lack_runs or within is None:
            return ""
        is_long = within > _LONG.total_seconds()
        time = durations.format_rounded(timedelta(seconds=within))
        return _text("new_runs", time=time) if is_long else ""


EMPTY = DataAge(
    None,
    is_stale=True,
    text=gettext_lazy("No longer available."),
    structure_hash="nothing",
)


def stages_data_age(stages: Sequence[ReadStage], now: datetime) -> DataAge:
    """Return the data age of `stages`: that of the oldest."""
    structure_hash = _fingerprint(read_states(stages))
    with_flow = [stage for stage in stages if stage.has_flow is not False] or stages
    sync_times = [stage.synced_at for stage in with_flow if stage.synced_at is not None]
    if not sync_times:
        return DataAge(None, is_stale=True, text=_unread_text(), structure_hash=structure_hash)
    return DataAge(
        min(sync_times),
        is_stale=any(schedule.is_stale(stage.fresh_until, now) for stage in with_flow),
        structure_hash=structure_hash,
    )


def place_data_age(pipeline: Pipeline, stages: Sequence[Stage], sync: SyncState) -> DataAge:
    """Return the data age of some stages of a pipeline, including unread stages."""
    removal = _removal(pipeline)
    structure_hash = _fingerprint((read_states(stages), removal))
    age = replace(stages_data_age(stages, sync.now), structure_hash=structure_hash)
    if any(removal):  # it is not read any more
        return age
    place = report.of_stages(stages, sync)
    return replace(_with_plan(age, place), incomplete_text=place.incomplete_text)


def page_data_age(
    full_report: Report, shown_stages: Sequence[ReadStage] = (), *structure: object
) -> DataAge:
    """Return the data age of a page about all stages, with the runs of `shown_stages`.

    It is that of the shown stages or, without any, of all. With `structure`, these values decide
    the page's structure.
    """
    now, oldest = full_report.sync.now, full_report.oldest_sync_at
    if shown_stages:
        age = stages_data_age(shown_stages, now)
    elif oldest is None:
        age = DataAge(None, is_stale=True, text=full_report.no_access or _unread_text())
    else:
        age = DataAge(oldest, is_stale=full_report.has_old_reads)
    # Until stages are read, a page lacks runs, or shows that it does not know of any.
    read = [full_report.total(name) for name in ("stages", "read", "with_flow", "with_flow_read")]
    return replace(
        _with_plan(age, full_report),
        is_stale=age.is_stale or full_report.total("stale") > 0,
        status_hint=to_text(full_report.problems),
        incomplete_text=full_report.incomplete_text,
        structure_hash=_fingerprint(structure or read),
    )


def run_data_age(run: Run, sync: SyncState) -> DataAge:
    """Return the data age of one run."""
    sync_times = [run.synced_at, run.detail_synced_at]
    # The removal of the run itself comes with its card.
    age = DataAge(
        max(sync_time for sync_time in sync_times if sync_time is not None),
        is_stale=run.in_flight and schedule.is_stale(run.stage.fresh_until, sync.now),
        structure_hash=_fingerprint(_removal(run.stage.pipeline)),
        may_lack_runs=False,
    )
    return _with_plan(age, report.of_stages([run.stage], sync)) if run.in_flight else age


def list_data_age(first_page: object) -> DataAge:
    """Return the data age of a page that lists our own rows, which have their own times.

    New rows appear on `first_page` only, so it decides the structure of every page of the list.
    """
    return DataAge(None, is_stale=False, structure_hash=_fingerprint(first_page))


def read_states(stages: Iterable[ReadStage]) -> list[tuple[int, bool | None, bool]]:
    """Return what decides the structure of a page that shows these stages: which were read."""
    return sorted((stage.pk, stage.has_flow, stage.synced_at is None) for stage in stages)


def _with_plan(age: DataAge, stages: Report) -> DataAge:
    sync = stages.sync
    return replace(age, new_runs_within=stages.new_runs_within, problem=sync.pause)


def _removal(pipeline: Pipeline) -> tuple[datetime | None, datetime | None]:
    return pipeline.project.removed_at, pipeline.removed_at


def _fingerprint(value: object) -> str:
    return blake2b(repr(value).encode(), digest_size=6).hexdigest()


def _unread_text() -> str:
    return _("No data has been read from Northflank yet.")
