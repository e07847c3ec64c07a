"""What channels are told: stories of runs, and the messages that come of them."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from structlog.testing import capture_logs

from dashboard.models import (
    EndRequest,
    Notice,
    NoticeMessage,
    NoticeRule,
    RightsChange,
    Run,
    Stage,
    Upstream,
    WebhookStats,
)
from dashboard.models.accounts.rights_changes import SubjectKind
from dashboard.models.notices import NoticeEvent
from dashboard.notices import default_rule
from dashboard.notices.round import Round
from dashboard.sync import overdue_checker
from tests.support import factories, growth

BASE = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Story:
    """A stage, a channel with a rule, and a clock in minutes."""

    def __init__(self, user: User, settings: Settings) -> None:
        self.user, self.settings = user, settings
        self.stage = factories.stage(concurrency_policy="queue")
        self.rule = self.add_rule(NoticeEvent.values)
        self.round = Round()
        self.now = BASE

    def add_rule(self, events: Any, channel: str = "oncall", **fields: Any) -> NoticeRule:
        created_at = BASE - timedelta(days=1)
        return NoticeRule.objects.create(
            channel=channel, events=list(events), **{"created_at": created_at} | fields
        )

    def time(self, minutes: float) -> datetime:
        return BASE + timedelta(minutes=minutes)

    def tell(self, *minutes: float) -> None:
        """Check what is overdue at these times, and tell."""
        for minute in minutes:
            self.now = self.time(minute)
            overdue_checker.check_runs(self.now)
            self.round.tell(self.now)

    def begin(self, minutes: float = 0, **fields: Any) -> Run:
        at = self.time(minutes)
        times = {"created_at": at, "started_at": at, "first_synced_at": at, "status_since": at}
        return factories.run(fields.pop("stage", self.stage), **times | fields)

    def end(self, run: Run, minutes: float, status: str = "success", **fields: Any) -> None:
        at = self.time(minutes)
        fields = {"status_since": at, "concluded_at": at, "failed_step": ""} | fields
        change(run, status=status, concluded=True, in_flight=False, **OK | fields)

    def abort(self, run: Run, minutes: float, state: str = "accepted", **fields: Any) -> Any:
        at = self.time(minutes)
        times = {"requested_at": at, "claimed_at": at, "sent_at": at, "responded_at": at}
        if state in {"refused", "not_sent", "too_late", "concluded"}:
            times["settled_at"] = at
        return factories.abort(run, self.user, state, **times | fields)


OK = {"overdue_severity": 0, "overdue_reason": "", "approval_since": None, "abort_severity": 0}


def change(run: Run, **fields: Any) -> None:
    Run.objects.filter(pk=run.pk).update(**fields)
    factories.change(run)


def told(channel: str = "oncall") -> list[str]:
    """Return the messages as “event of the run”, or “event over”."""
    return [
        f"{message.event}{' over' if message.is_over else ''}"
        for message in NoticeMessage.objects.filter(channel=channel)
    ]


@pytest.fixture
def story(settings: Settings, manager: User) -> Story:
    settings.NOTIFY_URLS = {"oncall": "json://127.0.0.1", "chat": "json://127.0.0.1"}
    settings.NORTHFLANK_WEBHOOK_SECRET = []
    return Story(manager, settings)


# --- stories --------------------------------------------------------------------------------------


def overdue_until_success(story: Story) -> None:
    run = story.begin()
    story.tell(0, 30, 61, 62, 120)
    story.end(run, 121)
    story.tell(121, 122)


def overdue_then_three_times_then_aborted(story: Story) -> None:
    run = story.begin()
    story.tell(61, 181)
    abort = story.abort(run, 182, reason="It hangs.")
    story.tell(182)
    story.end(run, 184, "aborted")
    type(abort).objects.filter(pk=abort.pk).update(
        state="concluded", outcome="aborted", settled_at=story.time(184)
    )
    story.tell(184, 185)


def failed_at_once(story: Story) -> None:
    run = story.begin()
    story.tell(0)
    story.end(run, 1, "failure")
    story.tell(1, 2, 15, 17, 40)


def failed_before_its_cause_was_read(story: Story) -> None:
    run = story.begin()
    story.end(run, 1, "failure", failed_step=None)
    story.tell(1, 1.5)
    assert told() == []
    story.tell(2, 3)


def overdue_then_failed(story: Story) -> None:
    run = story.begin()
    story.tell(61)
    story.end(run, 62, "failure")
    story.tell(62, 63)


def ten_queued_behind_one(story: Story) -> None:
    story.begin()
    for minutes in range(1, 11):
        story.begin(minutes, status="queued", started_at=None)
    story.tell(61, 90, 100)
    assert "Blocks 10 runs." in NoticeMessage.objects.latest("pk").body


def queue_that_is_too_long(story: Story) -> None:
    runs = [story.begin(n, status="queued", started_at=None) for n in range(6)]
    story.tell(17, 19, 22, 24)
    assert "Blocks 5 runs." in NoticeMessage.objects.get().body
    for minutes, run in enumerate(runs, 25):
        change(run, status="running", started_at=story.time(minutes), **OK)
        story.tell(minutes)
    Run.objects.update(in_flight=False, concluded=True, status="success")
    story.begin(100, status="queued", started_at=None)
    story.tell(120)


def queue_behind_a_run_that_has_just_started(story: Story) -> None:
    story.begin(20)
    story.begin(1, status="queued", started_at=None)
    story.tell(22, 40)
    assert Run.objects.filter(overdue_severity__gt=0).exists()  # of which nobody is to be woken


def flapping(story: Story) -> None:
    run = story.begin(-70)
    for minutes in range(0, 34, 2):
        change(run, started_at=story.time(minutes if minutes % 4 else minutes - 70))
        story.tell(minutes)


def waiting_for_approval(story: Story) -> None:
    run = story.begin(status="approval_wait")
    story.tell(0, 29, 31, 40)
    change(run, status="running", **OK)
    story.tell(41)


def abort_refused(story: Story) -> None:
    run = story.begin()
    story.abort(run, 1, "refused", response="No permission.")
    story.tell(1, 2, 20)
    story.end(run, 30)
    story.tell(30, 31)


def aborted_between_two_rounds(story: Story) -> None:
    run = story.begin()
    story.tell(1)
    story.abort(run, 2, "concluded", outcome="aborted", response_status=200)
    story.end(run, 2, "aborted")
    story.tell(2.1, 3, 20)
    assert NoticeMessage.objects.get().title.startswith("Aborted: ")


def aborted_again_later(story: Story) -> None:
    run = story.begin(0)
    story.abort(run, 1, "refused")
    story.tell(1)
    story.abort(run, 40)
    story.tell(40, 41)


def abort_in_vain(story: Story) -> None:
    run = story.begin()
    story.tell(1)
    story.abort(run, 2, "concluded", outcome="failure", response_status=200)
    story.end(run, 3, "failure")
    story.tell(3, 4)


def abort_too_late(story: Story) -> None:
    run = story.begin()
    story.end(run, 1)
    story.abort(run, 2, "too_late", outcome="success")
    story.tell(2, 3, 20)


def abort_not_ended_in_time(story: Story) -> None:
    run = story.begin()
    story.abort(run, 1)
    story.tell(1)
    change(run, status="aborting", status_since=story.time(1), abort_severity=1)
    story.tell(5, 6)


def quiet_hours_over_midnight(story: Story) -> None:
    NoticeRule.objects.update(quiet_from=time(22), quiet_until=time(7))
    first, second = story.begin(500), story.begin(540)  # 20:20 and 21:00
    story.tell(590)  # 21:50: the first is overdue
    story.end(first, 605)  # 22:05
    story.tell(605, 700, 720, 1139)  # until 6:59
    assert told() == ["overdue"]
    story.tell(1140)  # 7:00
    assert second.pk in Notice.objects.filter(over_at=None).values_list("run", flat=True)


def failure_while_northflank_was_not_read(story: Story) -> None:
    story.end(story.begin(-100), -90)
    run = story.begin(0, first_synced_at=story.time(50))
    story.end(run, 1, "failure", status_since=story.time(50))
    story.tell(50)


def history_of_a_new_pipeline(story: Story) -> None:
    run = story.begin(0, first_synced_at=story.time(50))
    story.end(run, 1, "failure", status_since=story.time(50))
    story.tell(50)


def history_at_installation(story: Story) -> None:
    NoticeRule.objects.update(created_at=story.time(10))
    story.end(story.begin(), 5, "failure")
    story.tell(10)


def removed_while_overdue(story: Story) -> None:
    run = story.begin()
    story.tell(61)
    change(run, removed_at=story.time(62))
    story.tell(62, 63)


def two_rules_of_a_channel(story: Story) -> None:
    story.add_rule([NoticeEvent.OVERDUE, NoticeEvent.FAILED], stage="Production")
    run = story.begin()
    story.tell(61)
    story.end(run, 62, "failure")
    story.tell(62)


def another_place(story: Story) -> None:
    NoticeRule.objects.update(stage="Staging")
    story.end(story.begin(), 1, "failure")
    story.add_rule(["failed"], project=factories.project("payments"))
    story.tell(1)


def rule_deleted_meanwhile(story: Story) -> None:
    run = story.begin()
    story.tell(61)
    NoticeRule.objects.all().update(events=["sync_down"])
    story.end(run, 62)
    story.tell(62)
    assert not Notice.objects.filter(over_at=None).exists()


def end_asked_for(story: Story) -> None:
    NoticeRule.objects.update(events=["run_ended"], quiet_from=time(0), quiet_until=time(23, 59))
    run = story.begin()
    fields = {"run": run, "channel": "oncall", "requested_at": BASE}
    EndRequest.objects.create(user=story.user, **fields)
    EndRequest.objects.create(user=User.objects.create_user("ann"), **fields)
    story.tell(1)
    story.end(run, 2)
    story.tell(2, 3)
    assert "Asked for by ann, manager." in NoticeMessage.objects.get().body
    assert not EndRequest.objects.exists()


def end_asked_for_of_an_overdue_run(story: Story) -> None:
    run = story.begin()
    story.tell(61)
    EndRequest.objects.create(user=story.user, run=run, channel="oncall", requested_at=BASE)
    change(run, started_at=story.time(61))
    story.tell(62)
    story.end(run, 63, "failure")
    story.tell(63, 64)


def outage(story: Story) -> None:
    factories.upstream_error("No response.", BASE)
    story.tell(1, 4, 5, 6)
    assert told() == ["sync_down"]
    Upstream.objects.update(error="", error_since=None)
    story.tell(7, 8)
    factories.upstream_error("No response.", story.time(60))
    story.tell(61, 65, 66)


def overdue_during_an_outage(story: Story) -> None:
    run = story.begin()
    story.begin(1, status="queued", started_at=None)
    factories.upstream_error("No response.", BASE)
    story.tell(30, 61, 181)
    Upstream.objects.update(error="", error_since=None)
    Stage.objects.update(fresh_until=story.time(182))
    story.tell(184)  # its stage has not been read again
    story.end(run, 185)
    Stage.objects.update(fresh_until=story.time(240))
    Run.objects.filter(status="queued").update(created_at=story.time(185))
    story.tell(186)


def webhooks_down(story: Story) -> None:
    story.settings.NORTHFLANK_WEBHOOK_SECRET = ["x" * 20]
    story.begin()
    story.tell(2, 6, 8)
    WebhookStats.objects.update_or_create(
        pk=1, defaults={"last_release_event_at": story.time(9), "last_event_at": story.time(9)}
    )
    story.tell(9)


def behind_the_plan(story: Story) -> None:
    Stage.objects.update(fresh_until=BASE)
    story.tell(1, 5, 6, 7)
    factories.upstream_error("No response.", story.time(7))
    story.tell(7, 11)
    Upstream.objects.update(error="", error_since=None)
    story.tell(11.5)
    Stage.objects.update(fresh_until=story.time(60))
    story.tell(8)


STORIES: dict[Callable[[Story], None], list[str]] = {
    overdue_until_success: ["overdue", "overdue over"],
    overdue_then_three_times_then_aborted: [
        "overdue", "far_overdue", "abort_requested", "far_overdue over",
    ],
    failed_at_once: ["failed"],
    failed_before_its_cause_was_read: ["failed"],
    overdue_then_failed: ["overdue", "failed over"],
    ten_queued_behind_one: ["overdue"],
    queue_that_is_too_long: ["overdue", "overdue over", "overdue"],
    queue_behind_a_run_that_has_just_started: [],
    flapping: ["overdue", "overdue over", "overdue"],
    waiting_for_approval: ["approval", "approval over"],
    abort_refused: ["abort_otherwise", "abort_otherwise over"],
    aborted_between_two_rounds: ["abort_requested"],
    aborted_again_later: ["abort_otherwise", "abort_requested"],
    abort_in_vain: ["abort_otherwise"],
    abort_too_late: ["abort_otherwise"],
    abort_not_ended_in_time: ["abort_requested", "abort_overdue"],
    quiet_hours_over_midnight: ["overdue", "overdue over", "far_overdue"],
    failure_while_northflank_was_not_read: ["failed"],
    history_of_a_new_pipeline: [],
    history_at_installation: [],
    removed_while_overdue: ["overdue", "overdue over"],
    two_rules_of_a_channel: ["overdue", "failed over"],
    another_place: [],
    rule_deleted_meanwhile: ["overdue"],
    end_asked_for: ["run_ended"],
    end_asked_for_of_an_overdue_run: ["overdue", "overdue over", "failed"],
    outage: ["sync_down", "sync_down over", "sync_down"],
    overdue_during_an_outage: ["sync_down", "sync_down over"],
    webhooks_down: ["webhooks_down", "webhooks_down over"],
    behind_the_plan: ["behind_plan", "behind_plan over"],
}  # fmt: skip


@pytest.mark.parametrize("tell_story", STORIES, ids=lambda function: function.__name__)
def test_channel_is_told_of_each_cause_once_and_of_its_end(
    tell_story: Callable[[Story], None], story: Story
) -> None:
    tell_story(story)
    assert told() == STORIES[tell_story]


# --- one telling ----------------------------------------------------------------------------------


def test_two_processes_that_lead_tell_once(transactional_db: None, story: Story) -> None:
    story.begin()
    overdue_checker.check_runs(story.time(61))
    barrier = threading.Barrier(4)

    def tell(_: int) -> None:
        barrier.wait(10)
        try:
            Round().tell(story.time(61))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tell, range(4)))
    assert told() == ["overdue"]


def test_new_process_neither_repeats_nor_forgets(story: Story) -> None:
    run = story.begin()
    story.tell(61)
    factories.upstream_error("No response.", BASE)
    story.round = Round()
    story.tell(62)
    assert sorted(told()) == ["overdue", "sync_down"]
    story.end(run, 63)
    story.round = Round()
    story.tell(63)
    assert sorted(told()) == ["overdue", "overdue over", "sync_down"]


def test_channels_are_told_each_by_its_own_rules(story: Story) -> None:
    story.add_rule(["failed"], "chat")
    run = story.begin()
    story.tell(61)
    story.end(run, 62, "failure")
    story.tell(62)
    assert told("chat") == ["failed"]
    assert told() == ["overdue", "failed over"]


def test_read_only_dashboard_tells_too(story: Story) -> None:
    story.settings.READ_ONLY = True
    story.begin()
    story.tell(61)
    assert told() == ["overdue"]


def test_defect_in_one_message_stops_no_other(story: Story) -> None:
    broken = story.begin(steps={"no": "tree"}, overdue_severity=1, overdue_reason="run")
    story.begin(1)
    with capture_logs() as logs:
        story.tell(62)
    assert NoticeMessage.objects.exclude(run=broken).count() == 1
    crashes = [line for line in logs if line["event"] == "notice.crashed"]
    assert [line["cause"] for line in crashes] == [f"run-{broken.pk}"]


# --- the first rule -------------------------------------------------------------------------------


def test_first_channel_gets_a_rule_once(story: Story) -> None:
    NoticeRule.objects.all().delete()
    story.tell(0, 1)
    rule = NoticeRule.objects.get()
    assert (rule.channel, rule.events, rule.project, rule.stage) == (
        "oncall", default_rule.FIRST_EVENTS, None, "Production",
    )  # fmt: skip
    change = RightsChange.objects.get()
    assert (change.subject_kind, change.subject_key) == (SubjectKind.NOTICE, rule.pk)
    rule.delete()
    story.tell(2)
    assert not NoticeRule.objects.exists()


# --- what it costs --------------------------------------------------------------------------------


def count_statements(story: Story) -> int:
    with CaptureQueriesContext(connection) as queries:
        story.round.tell(story.time(1))
    return len(queries)


def test_nothing_is_asked_without_a_channel(story: Story) -> None:
    story.settings.NOTIFY_URLS = {}
    assert count_statements(story) == 0


@pytest.mark.slow
def test_idle_installation_costs_few_statements(story: Story) -> None:
    growth.create_stages(3_000)
    assert count_statements(story) <= 6
