"""What is around a run, as its page and the question before an abort show it."""

from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.models import Run
from dashboard.runs.concurrency import Around
from dashboard.web.components import run_row, stage_cell
from dashboard.web.components.run_row import Row

MOST = 5  # runs that are named


@dataclass(frozen=True, slots=True)
class Group:
    """Some runs, of which the first are named."""

    rows: list[Row]
    count: int

    @property
    def more(self) -> int:
        """How many are not named."""
        return self.count - len(self.rows)


@dataclass(frozen=True, slots=True)
class Panel:
    """The panel "Around it"."""

    policy: str
    can_hold_up: bool  # others can have to wait for it: that none does is worth a line
    before: Group
    behind: Group
    may_swallow: bool  # what comes now may be ignored without a trace: worth a line, too
    swallowed: Group
    swallowed_in_words: str
    dropped_for: Row | None
    dropped_for_in_words: str
    beside: Group
    last_good: Row | None
    is_last_good: bool  # the run itself is


def panel(run: Run, of: Around) -> Panel:
    """Prepare what is around a run for the template."""
    policy = run.stage.concurrency_policy
    good = of.last_good
    return Panel(
        policy=of.policy,
        can_hold_up=run.in_flight and policy not in {"allow", "forbid"},
        before=_group(of.before),
        behind=_group(of.behind),
        may_swallow=run.in_flight and policy == "forbid",
        swallowed=_group(of.swallowed),
        swallowed_in_words=of.swallowed_in_words,
        dropped_for=_row(of.dropped_for) if of.dropped_for is not None else None,
        dropped_for_in_words=of.dropped_for_in_words.rstrip("."),
        beside=_group(of.beside),
        last_good=_row(good) if good is not None and good.pk != run.pk else None,
        is_last_good=good is not None and good.pk == run.pk,
    )


def _group(runs: Sequence[Run]) -> Group:
    return Group([_row(each) for each in runs[:MOST]], len(runs))


def _row(run: Run) -> Row:
    return run_row.row(run, stage_cell.UNSEEN, None)
