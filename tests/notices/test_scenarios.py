"""What channels are told in each scenario of the sandbox, by the rule of a new installation and by
one with all events. The tables were written before the scenarios were run.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pytest_django import Settings

from dashboard.aborts.reconcile import reconcile_open_aborts
from dashboard.db import threads as db_threads
from dashboard.models import Notice, NoticeMessage, NoticeRule, Run
from dashboard.models.notices import NoticeEvent
from dashboard.notices import default_rule
from dashboard.notices.round import Round
from dashboard.runs import attention
from dashboard.runs.overdue import OverdueReason
from dashboard.sync import overdue_checker
from tests.support import live as live_module
from tests.support.live import Live

pytestmark = pytest.mark.slow

# At the start, of Production: “event: run”, and how many runs it blocks if it blocks any.
DEFAULT_RULE: dict[str, list[str]] = {
    "quiet-night": [],
    "stuck-production": ["overdue: Basket totals 4719, blocks 2"],
    "queue-pileup": [
        "far_overdue: Front of the queue, blocks 9",
        "far_overdue: New landing page",
    ],
    "approval-wait": ["overdue: Synonyms 212"],
    "abort-hangs": [
        "abort_overdue: Synonyms 212, blocks 1",
        "far_overdue: Basket totals 4719, blocks 1",
    ],
    "jobs-and-builds": [
        f"far_overdue: Waits: {name}"
        for name in (
            "silent", "chatty", "retrying", "survivor", "build", "build-of-job", "condition",
            "build-condition", "argument", "one-match", "several-matches",
        )
    ],
}  # fmt: skip
# What a rule with all events adds of the runs that the scenario has set.
ALL_EVENTS: dict[str, list[str]] = {
    "queue-pileup": [
        "far_overdue: Front of the queue, blocks 9",
        "far_overdue: Front of the queue, blocks 1",  # `latest` keeps one
    ],
    "approval-wait": ["far_overdue: Voucher codes 4720"],
    "abort-hangs": ["far_overdue: Voucher codes 4720, blocks 1"],
}


class Site:
    """The dashboard beside the sandbox, both with a clock that a test moves."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.round = Round()
        self.offset = 0.0
        live.sandbox.clock = lambda: time.time() + self.offset
        live.replace_worker(
            chores=[reconcile_open_aborts], renewal_interval=0, sync_clock=self.set_clock
        )

    def set_clock(self) -> None:
        db_threads.set_clock_offset(timedelta(seconds=self.offset))

    def go_on(self, seconds: float, step: float = 5.0) -> None:
        """Read, check and tell as the leader does, every `step` seconds."""
        for _ in range(round(seconds / step)):
            self.offset += step
            self.set_clock()
            self.live.sync(1)
            overdue_checker.check_runs(db_threads.now())
            self.round.tell(db_threads.now())


def told(channel: str) -> list[str]:
    lines = []
    for message in NoticeMessage.objects.filter(channel=channel).select_related("run"):
        blocks = message.payload["run"]["blocks"] if message.run else 0
        suffix = f", blocks {blocks}" if blocks else ""
        over = " over" if message.is_over else ""
        lines.append(f"{message.event}{over}: {message.run or 'dashboard'}{suffix}")
    return sorted(lines)


@pytest.fixture
def site(transactional_db: None, scenario: str, settings: Settings) -> Iterator[Site]:
    settings.NOTIFY_URLS = {"oncall": "json://127.0.0.1", "all": "json://127.0.0.1"}
    settings.NORTHFLANK_WEBHOOK_SECRET = []
    default_rule.create(db_threads.now())
    every = [event for event in NoticeEvent.values if event != NoticeEvent.RUN_ENDED]
    NoticeRule.objects.create(channel="all", events=every, created_at=db_threads.now())
    # One preset run is six hours old.
    options = replace(live_module.options(), scenario=scenario, history_hours=7)
    with live_module.run_live(options) as live:
        yield Site(live)
    db_threads.set_clock_offset(timedelta())


@pytest.mark.parametrize("scenario", DEFAULT_RULE)
def test_start_of_each_scenario(site: Site, scenario: str) -> None:
    site.go_on(30)
    expected = DEFAULT_RULE[scenario]
    assert (told("oncall"), told("all")) == (
        sorted(expected), sorted(expected + ALL_EVENTS.get(scenario, []))
    )  # fmt: skip


def open_runs(channel: str) -> set[int]:
    """Return the runs in flight that a channel was told of, and not that it is over."""
    # The end of one that has failed may wait for its cause to be read.
    notices = Notice.objects.filter(channel=channel, over_at=None, run__in_flight=True)
    notices = notices.filter(cause__startswith="run-")
    return {notice.run_id for notice in notices if notice.run_id}


def runs_that_need_attention(**place: str) -> set[int]:
    """Return the runs in flight that *Now* lists as such, except for those that only wait."""
    runs = Run.objects.filter(**place).exclude(overdue_reason=OverdueReason.QUEUE)
    return {run.pk for run in attention.load(runs, db_threads.now()) if run.is_in_flight}


@pytest.mark.parametrize(("scenario", "minutes"), [("everyday", 20), ("100-pipelines", 1)])
def test_channel_knows_what_needs_attention_and_each_failure(site: Site, minutes: int) -> None:
    began_at = db_threads.now()
    site.go_on(60 * minutes, step=30)
    assert open_runs("oncall") == runs_that_need_attention(stage__name="Production")
    in_flight = Run.objects.filter(pk__in=open_runs("all")).exclude(status="aborting")
    assert set(in_flight.values_list("pk", flat=True)) == runs_that_need_attention()
    # The last may wait for its cause to be read.
    failures = attention.failed_runs(Run.objects.all(), began_at).filter(
        status_since__lt=db_threads.now() - timedelta(minutes=2)
    )
    messages = NoticeMessage.objects.filter(channel="all")
    about_failures = messages.filter(event=NoticeEvent.FAILED)
    assert set(failures.values_list("pk", flat=True)) <= {m.run_id for m in about_failures}
    begun = Counter(messages.filter(is_over=False).values_list("event", "run"))
    assert set(begun.values()) == {1}


@pytest.mark.parametrize("scenario", ["upstream-down"])
def test_outage_is_one_message_whatever_goes_on_meanwhile(site: Site) -> None:
    site.go_on(90)  # a failure in the first minute is told in the second
    site.go_on(90)
    before = Counter(told("all"))
    site.go_on(1200, step=30)
    assert Counter(told("all")) - before == Counter(["sync_down: dashboard"])
    assert Run.objects.filter(overdue_severity__gt=0).count() > len(open_runs("all"))
