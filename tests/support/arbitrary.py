"""Hypothesis strategies for arbitrary runs and step trees."""

from datetime import UTC, datetime

from hypothesis import strategies as st

from dashboard.models import Pipeline, Run, Stage
from dashboard.models.severity import Severity
from dashboard.runs import statuses
from dashboard.runs.overdue import OverdueReason
from tests.support.factories import node

STAGE = Stage(name="Production", pipeline=Pipeline(name="checkout"))


TEXT = st.text(st.characters(exclude_characters="N-"), max_size=12)


TIMES = st.datetimes(datetime(2025, 12, 1), datetime(2026, 2, 1), timezones=st.just(UTC))  # noqa: DTZ001


STATUS = st.sampled_from([*statuses.RUN_STATUSES, *statuses.STEP_STATUSES, "", "odd"])


OPTIONAL_TIMES = st.none() | TIMES


leaves = st.builds(
    node,
    st.sampled_from(["JobRun", "Approval", "Workflow", "Teleport", "Omitted", ""]),
    label=TEXT,
    ref=st.none() | st.just("migrate"),
    status=st.none() | STATUS,
    error_message=st.none() | TEXT,
    error_code=st.none() | st.integers(0, 999),
    attempts=st.none() | st.integers(-2, 5),
    max_attempts=st.none() | st.integers(-2, 5),
    next_attempt_at=OPTIONAL_TIMES,
    started_at=OPTIONAL_TIMES,
    ended_at=OPTIONAL_TIMES,
)


trees = st.recursive(
    leaves,
    lambda children: st.builds(
        node,
        st.sampled_from(["Workflow", "LoopWorkflow", "Odd"]),
        label=TEXT,
        status=st.none() | STATUS,
        steps=st.lists(children, max_size=4).map(tuple),
    ),
    max_leaves=20,
)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    concluded, is_removed = draw(st.booleans()), draw(st.booleans())
    level = draw(st.sampled_from(Severity))
    return Run(
        stage=STAGE,
        status=draw(STATUS | TEXT),
        concluded=concluded,
        in_flight=not concluded and not is_removed,
        removed_at=draw(TIMES) if is_removed else None,
        created_at=draw(TIMES),
        started_at=draw(OPTIONAL_TIMES),
        concluded_at=draw(OPTIONAL_TIMES),
        first_synced_at=draw(TIMES),
        status_since=draw(TIMES),
        step=draw(TEXT),
        step_started_at=draw(OPTIONAL_TIMES),
        overdue_severity=level,
        overdue_reason=str(draw(st.sampled_from(OverdueReason))) if level else "",
    )
