"""Any run, any abort, any fault, in any order: no state is without a true sentence."""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import hypothesis
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import F
from hypothesis import HealthCheck, Phase, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dashboard import aborts
from dashboard.aborts import Press, resend_policy
from dashboard.accounts import permissions
from dashboard.db.threads import in_database
from dashboard.models import Abort, AbortEvent, QuestionCounter, Run
from dashboard.models.aborts import What
from dashboard.models.runs import touch
from dashboard.northflank import NorthflankClient, NorthflankError, RunDetail
from dashboard.sandbox import parse_fault
from dashboard.sandbox.world import World
from dashboard.sync import mirror
from dashboard.sync.stage_reader import read_run
from tests.support import abort_truth as truth
from tests.support.flights import LEDGER, SEARCH, ask_with, in_flight, look_after, unguarded
from tests.support.live import Live

PATIENCE = 0.3  # seconds for which the dashboard waits for Northflank
BEGUN = float(int(time.time()))
RED = 700  # seconds: longer than an abort may take

FAULTS = (
    "500", "502-html", "reset", "reset-after", "truncated", "not-json", "empty-body",
    "rate-limited", "bad-token", "error-string:404", "error-string:409",
    "abort-lost:1", "abort-timeout:1",
)  # fmt: skip
on_the_post = strategies.sampled_from(["", "", "", *FAULTS])
on_the_reading = strategies.sampled_from(["", "", "", "503", "reset", "error-string:404"])
answers = strategies.sampled_from(["aborting", "unchanged", "aborted"])
to_the_concluded = strategies.sampled_from(["200", "400", "404", "409"])
# What Northflank says of a run, whatever it has said before.
words = strategies.sampled_from([
    ("running", False), ("aborting", False), ("hibernating", False), ("queued", False),
    ("aborted", True), ("success", True), ("failure", True), ("unknown", True),
])  # fmt: skip
which = strategies.integers(0, 1)  # of two runs, of two people


class Watched(NorthflankClient):
    """Counts the aborts that are under way at the same time, by run."""

    under_way: Counter[str]
    at_once: Counter[str]  # the most there were

    async def abort_run(
        self, project_id: str, pipeline_id: str, stage: str, run_id: str, **more: Any
    ) -> RunDetail:
        self.under_way[run_id] += 1
        self.at_once[run_id] = max(self.at_once[run_id], self.under_way[run_id])
        try:
            return await super().abort_run(project_id, pipeline_id, stage, run_id, **more)
        finally:
            self.under_way[run_id] -= 1


class Machine(RuleBasedStateMachine):
    """Two runs, two people who may abort them, and an upstream of which anything can be expected.

    What is said of an act is judged by what Northflank has told us last.
    """

    live: Live
    settings: Any

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.kept: dict[int, dict[str, Any]] = {}
        self.never_left = Counter[str]()  # sendings whose process died before, by the run's id
        self.people = list(User.objects.order_by("pk"))

    @initialize(begin=strategies.integers(0, 999))
    def a_run(self, begin: int) -> None:
        # The same runs with the same lives in an example that is played again.
        now = BEGUN + begin
        self.live.sandbox.world = World()
        self.live.sandbox.clock = lambda: now
        self.live.sandbox.abort_posts.clear()
        self.start()

    def teardown(self) -> None:
        self.live.sandbox.faults = []
        self.live.sandbox.choices.chosen.clear()
        self.live.connection.trouble = ""
        self.settings.READ_ONLY = False
        self.people[1].groups.set(self.people[0].groups.all())
        with unguarded():
            AbortEvent.objects.all().delete()
            Abort.objects.update(retry_of=None)
            Abort.objects.all().delete()
        Run.objects.all().delete()

    # --- runs ------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.runs) == 1)
    @rule()
    def start(self) -> None:
        place = (LEDGER, SEARCH)[len(self.runs)]  # there an abort takes a reason, and may fail
        self.runs.append(in_flight(self.live, place))

    @rule(number=which, seconds=strategies.sampled_from([2, 10, 70, 400, 3600]))
    def time_passes(self, number: int, seconds: int) -> None:
        ahead = self.live.sandbox.clock
        self.live.sandbox.clock = lambda: ahead() + seconds
        self.ours_passes(number, seconds)

    @rule(number=which, seconds=strategies.sampled_from([5, 10, 70, 200, RED]))
    def ours_passes(self, number: int, seconds: int) -> None:
        """Have our time pass, and Northflank's stand still."""
        by = timedelta(seconds=seconds)
        with unguarded():
            for name in ("requested_at", "claimed_at", "sent_at", "answered_at"):
                Abort.objects.open().update(**{name: F(name) - by})
            AbortEvent.objects.filter(abort__settled_at=None).update(at=F("at") - by)
        for name in ("seen_at", "status_since", "detail_seen_at", "gone_at"):
            Run.objects.update(**{name: F(name) - by})

    @rule(number=which, fault=on_the_reading)
    def the_run_is_read(self, number: int, fault: str) -> None:
        run = self.run(number)
        with self.faults(f"{fault}@GET" if fault else ""), contextlib.suppress(NorthflankError):
            self.live.run(lambda: read_run(self.live.connection, run))

    @rule(number=which)
    def the_list_is_read(self, number: int) -> None:
        stage = self.run(number).stage
        at = (stage.pipeline.project.slug, stage.pipeline.slug, stage.path)
        asked_at, asked_seq = aborts.sending.database.now(), QuestionCounter.take()
        page = self.live.run(lambda: self.live.connection.client.runs(*at, per_page=100))
        mirror.runs(stage.pk, page.items, asked_at=asked_at, asked_seq=asked_seq)
        mirror.missing_from(stage.pk, page.items, asked_at=asked_at, asked_seq=asked_seq)

    @rule(number=which, said=words)
    def northflank_says(self, number: int, said: tuple[str, bool]) -> None:
        run = self.run(number)
        at = (run.stage.pipeline.project.slug, run.stage.pipeline.slug, run.stage.path)
        asked_at, asked_seq = aborts.sending.database.now(), QuestionCounter.take()
        detail = self.live.run(lambda: self.live.connection.client.run(*at, run.run_id))
        status, concluded = said
        told = replace(detail.run, status=status, concluded=concluded)
        mirror.detail(
            run.stage_id, replace(detail, run=told), asked_at=asked_at, asked_seq=asked_seq
        )

    # --- presses ---------------------------------------------------------------------------------

    @rule(
        number=which, person=which, reason=strategies.sampled_from(["", "Stuck"]),
        fault=on_the_post, answer=answers, concluded=to_the_concluded,
    )  # fmt: skip
    def press(
        self, number: int, person: int, reason: str, fault: str, answer: str, concluded: str
    ) -> None:
        with self.faults(f"{fault}*1@/abort" if fault else ""):
            self.live.sandbox.choices["abort-answer"] = answer
            self.live.sandbox.choices["abort-concluded"] = concluded
            self.pressed(number, person, reason, send=True)

    @rule(number=which, person=which, fault=on_the_post, reading=on_the_reading)
    def try_again(self, number: int, person: int, fault: str, reading: str) -> None:
        run = self.run(number)
        tried = Abort.objects.open().filter(run=run).first()
        if tried is None:
            return
        self.ours_passes(number, RED)
        tried.refresh_from_db()
        look_after(self.live)
        faults = [f"{fault}*1@/abort" if fault else "", f"{reading}*1@GET" if reading else ""]
        with self.faults(*faults):
            self.pressed(number, person, "Stuck", send=True, again=tried.pk)

    @rule(number=which, person=which, came=strategies.sampled_from(["", "sent", "arrived"]))
    def a_process_dies(self, number: int, person: int, came: str) -> None:
        """Leave an act as a process does that dies before, or while, it sends."""
        act = self.pressed(number, person, "Stuck", send=False)
        if act is None or not came:
            return
        now = aborts.sending.database.now()
        with transaction.atomic():
            touch([act.run_id])
            Abort.objects.filter(pk=act.pk).update(sent_at=now, claimed_at=now, sendings=1)
            act.note(What.SENT, now)
        if came == "sent":
            self.never_left[act.run.run_id] += 1
        else:
            run = self.run(number)
            at = (run.stage.pipeline.project.slug, run.stage.pipeline.slug, run.stage.path)
            with contextlib.suppress(NorthflankError):
                self.live.run(lambda: self.live.connection.client.abort_run(*at, run.run_id))

    def pressed(
        self, number: int, person: int, reason: str, *, send: bool, again: int | None = None
    ) -> Abort | None:
        """Press, and return the act where this made one; it is made whenever it may be."""
        run, user = self.run(number), self.people[person]
        may = permissions.may_abort(user, run.stage).allowed
        given = bool(reason) or not aborts.reason_required(run.stage)
        under_way = Abort.objects.open().filter(run=run).first()
        try:
            pressed = aborts.request(run, Press(user, reason), again=again)
        except aborts.NotAllowed:
            assert not may
            return None
        except aborts.NotInFlight:
            assert not run.in_flight
            return None
        except aborts.ReasonMissing:
            assert not given
            return None
        if under_way is None:
            assert pressed.made
        if send and pressed.made:  # who joins waits for whoever made it, and that one may be dead
            self.live.run(lambda: aborts.answered(pressed))
        return pressed.abort if pressed.made else None

    # --- the rest --------------------------------------------------------------------------------

    @rule(fault=on_the_reading)
    def the_worker_looks_after_aborts(self, fault: str) -> None:
        with self.faults(f"{fault}@GET" if fault else ""):
            look_after(self.live)

    @rule(number=which, person=which, fault=on_the_post)
    def several_workers_look_after_aborts_while_somebody_presses(
        self, number: int, person: int, fault: str
    ) -> None:
        run, user = self.run(number), self.people[person]

        def press() -> int | None:
            with contextlib.suppress(aborts.NotAllowed, aborts.NotInFlight, aborts.ReasonMissing):
                pressed = aborts.request(run, Press(user, "Stuck"))
                return pressed.abort.pk if pressed.made else None
            return None

        async def at_once() -> None:
            async def press_and_send() -> None:
                if (act := await in_database(press)) is not None:
                    await aborts.send(self.live.connection, act)

            looks = [aborts.look_after_open_aborts(self.live.connection) for _ in range(3)]
            await asyncio.gather(press_and_send(), *looks)

        with self.faults(f"{fault}@/abort" if fault else "", "latency:0.02@/abort"):
            self.live.run(at_once)

    @rule()
    def the_only_process_starts_anew(self) -> None:
        aborts.orphan_all()
        look_after(self.live)

    @rule(on=strategies.booleans())
    def aborting_is_switched(self, on: bool) -> None:
        self.settings.READ_ONLY = not on

    @rule(given=strategies.booleans())
    def a_right_is_withdrawn_or_given(self, given: bool) -> None:
        groups = Group.objects.filter(name=permissions.RELEASE_MANAGERS) if given else []
        self.people[1].groups.set(groups)

    # --- what holds ------------------------------------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        self.at_most_one_act_is_open_a_run()
        self.each_sending_is_a_line_and_they_are_few()
        self.never_are_two_of_ours_under_way_for_one_run()
        self.whatever_has_settled_stays()
        self.all_that_is_said_is_true()

    def at_most_one_act_is_open_a_run(self) -> None:
        open_acts = list(Abort.objects.open().values_list("run", flat=True))
        assert len(open_acts) == len(set(open_acts))

    def each_sending_is_a_line_and_they_are_few(self) -> None:
        sent = Counter[str]()
        for act in Abort.objects.select_related("run").prefetch_related("events"):
            lines = sum(event.what == What.SENT for event in act.events.all())
            assert act.sendings == lines <= resend_policy.MOST
            sent[act.run.run_id] += lines
        for run in self.runs:
            arrived = self.live.sandbox.abort_posts[run.run_id]
            assert arrived + self.never_left[run.run_id] == sent[run.run_id]

    def never_are_two_of_ours_under_way_for_one_run(self) -> None:
        client = self.live.connection.client
        assert isinstance(client, Watched)
        assert max(client.at_once.values(), default=0) <= 1

    def whatever_has_settled_stays(self) -> None:
        for row in Abort.objects.exclude(settled_at=None).values():
            assert self.kept.setdefault(row["id"], row) == row

    def all_that_is_said_is_true(self) -> None:
        for act in Abort.objects.select_related("run").prefetch_related("events"):
            truth.holds(
                act,
                list(act.events.all()),
                status=act.run.status,
                posts=self.live.sandbox.abort_posts[act.run.run_id],
                gone=act.run.gone_at is not None,
            )

    def run(self, number: int) -> Run:
        return Run.objects.with_place().get(pk=self.runs[number % len(self.runs)].pk)

    @contextlib.contextmanager
    def faults(self, *wanted: str) -> Any:
        self.live.sandbox.faults = [parse_fault(fault) for fault in wanted if fault]
        try:
            yield
        finally:
            self.live.sandbox.faults = []
            self.live.sandbox.window.used = 0


def test_no_state_is_without_a_true_sentence(live: Live, manager: User, settings: Any) -> None:
    colleague = User.objects.create_user("colleague", password="colleague")
    colleague.groups.set(manager.groups.all())
    watched = Watched(
        live.sandbox.options.token, base_url=live.upstream_url, timeout_seconds=PATIENCE,
        observe=live.connection.calls.append,
    )  # fmt: skip
    watched.under_way, watched.at_once = Counter(), Counter()
    ask_with(live, watched)
    run_state_machine_as_test(
        type("Living", (Machine,), {"live": live, "settings": settings}),
        settings=hypothesis.settings(
            max_examples=40,
            stateful_step_count=20,
            phases=[Phase.generate],  # no shrinking: a step is a dozen real requests
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
