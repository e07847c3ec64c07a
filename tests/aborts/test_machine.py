"""State machine test: any runs, aborts and faults in any order; every state has a true message."""

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
from dashboard.aborts import AbortRequest, resend_policy
from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.db.threads import run_in_db_thread
from dashboard.models import Abort, AbortEvent, RequestCounter, Run
from dashboard.models.aborts import EventType
from dashboard.models.runs import mark_changed
from dashboard.northflank import NorthflankClient, NorthflankError, RunDetail
from dashboard.sandbox import parse_fault
from dashboard.sandbox.world import World
from dashboard.sync import mirror
from dashboard.sync.stage_reader import read_run
from tests.support import abort_truth as truth
from tests.support.live import Live
from tests.support.live_runs import (
    LEDGER,
    SEARCH,
    append_only_disabled,
    in_flight,
    look_after,
    replace_client,
)

TIMEOUT_SECONDS = 0.3  # seconds for which the dashboard waits for Northflank
START_TIME = float(int(time.time()))
CRITICAL_SECONDS = 700  # seconds: longer than an abort may take

FAULTS = (
    "500", "502-html", "reset", "reset-after", "truncated", "not-json", "empty-body",
    "rate-limited", "bad-token", "error-string:404", "error-string:409",
    "abort-lost:1", "abort-timeout:1",
)  # fmt: skip
abort_faults = strategies.sampled_from(["", "", "", *FAULTS])
read_faults = strategies.sampled_from(["", "", "", "503", "reset", "error-string:404"])
answers = strategies.sampled_from(["aborting", "unchanged", "aborted"])
concluded_answers = strategies.sampled_from(["200", "400", "404", "409"])
# What Northflank says of a run, whatever it has said before.
reported_statuses = strategies.sampled_from([
    ("running", False), ("aborting", False), ("hibernating", False), ("queued", False),
    ("aborted", True), ("success", True), ("failure", True), ("unknown", True),
])  # fmt: skip
index_of_two = strategies.integers(0, 1)  # of two runs, of two people


class CountingClient(NorthflankClient):
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


class CreateApiClient(RuleBasedStateMachine):
    """Two runs, two people who may abort them, and an upstream of which anything can be expected.

    What is said of an act is judged by what Northflank has told us last.
    """

    live: Live
    settings: Any

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.settled_rows: dict[int, dict[str, Any]] = {}
        self.lost_sends = Counter[str]()  # sends whose process died before, by the run's id
        self.people = list(User.objects.order_by("pk"))

    @initialize(begin=strategies.integers(0, 999))
    def a_run(self, begin: int) -> None:
        # The same runs with the same lives in an example that is played again.
        now = START_TIME + begin
        self.live.sandbox.world = World()
        self.live.sandbox.clock = lambda: now
        self.live.sandbox.abort_request_counts.clear()
        self.start()

    def teardown(self) -> None:
        self.live.sandbox.faults = []
        self.live.sandbox.choices.overrides.clear()
        self.live.connection.outage = ""
        self.settings.READ_ONLY = False
        self.people[1].groups.set(self.people[0].groups.all())
        with append_only_disabled():
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

    @rule(number=index_of_two, seconds=strategies.sampled_from([2, 10, 70, 400, 3600]))
    def time_passes(self, number: int, seconds: int) -> None:
        ahead = self.live.sandbox.clock
        self.live.sandbox.clock = lambda: ahead() + seconds
        self.our_clock_advances(number, seconds)

    @rule(number=index_of_two, seconds=strategies.sampled_from([5, 10, 70, 200, CRITICAL_SECONDS]))
    def our_clock_advances(self, number: int, seconds: int) -> None:
        """Have our time pass, and Northflank's stand still."""
        by = timedelta(seconds=seconds)
        with append_only_disabled():
            for name in ("requested_at", "claimed_at", "sent_at", "answered_at"):
                Abort.objects.open().update(**{name: F(name) - by})
            AbortEvent.objects.filter(abort__settled_at=None).update(
                occurred_at=F("occurred_at") - by
            )
        for name in ("synced_at", "status_since", "detail_synced_at", "removed_at"):
            Run.objects.update(**{name: F(name) - by})

    @rule(number=index_of_two, fault=read_faults)
    def the_run_is_read(self, number: int, fault: str) -> None:
        run = self.run(number)
        with self.faults(f"{fault}@GET" if fault else ""), contextlib.suppress(NorthflankError):
            self.live.run(lambda: read_run(self.live.connection, run))

    @rule(number=index_of_two)
    def the_list_is_read(self, number: int) -> None:
        stage = self.run(number).stage
        at = (stage.pipeline.project.slug, stage.pipeline.slug, stage.confirmed_path_segment)
        requested_at, request_seq = db_threads.now(), RequestCounter.take_next()
        page = self.live.run(lambda: self.live.connection.client.list_runs(*at, per_page=100))
        mirror.apply_runs(stage.pk, page.items, requested_at=requested_at, request_seq=request_seq)
        mirror.schedule_unlisted(
            stage.pk, page.items, requested_at=requested_at, request_seq=request_seq
        )

    @rule(number=index_of_two, said=reported_statuses)
    def northflank_says(self, number: int, said: tuple[str, bool]) -> None:
        run = self.run(number)
        at = (
            run.stage.pipeline.project.slug,
            run.stage.pipeline.slug,
            run.stage.confirmed_path_segment,
        )
        requested_at, request_seq = db_threads.now(), RequestCounter.take_next()
        detail = self.live.run(lambda: self.live.connection.client.get_run(*at, run.run_id))
        status, concluded = said
        told = replace(detail.run, status=status, concluded=concluded)
        mirror.apply_detail(
            run.stage_id,
            replace(detail, run=told),
            requested_at=requested_at,
            request_seq=request_seq,
        )

    # --- presses ---------------------------------------------------------------------------------

    @rule(
        number=index_of_two, person=index_of_two, reason=strategies.sampled_from(["", "Stuck"]),
        fault=abort_faults, answer=answers, concluded=concluded_answers,
    )  # fmt: skip
    def press(
        self, number: int, person: int, reason: str, fault: str, answer: str, concluded: str
    ) -> None:
        with self.faults(f"{fault}*1@/abort" if fault else ""):
            self.live.sandbox.choices["abort-answer"] = answer
            self.live.sandbox.choices["abort-concluded"] = concluded
            self.pressed(number, person, reason, send=True)

    @rule(number=index_of_two, person=index_of_two, fault=abort_faults, reading=read_faults)
    def try_again(self, number: int, person: int, fault: str, reading: str) -> None:
        run = self.run(number)
        tried = Abort.objects.open().filter(run=run).first()
        if tried is None:
            return
        self.our_clock_advances(number, CRITICAL_SECONDS)
        tried.refresh_from_db()
        look_after(self.live)
        faults = [f"{fault}*1@/abort" if fault else "", f"{reading}*1@GET" if reading else ""]
        with self.faults(*faults):
            self.pressed(number, person, "Stuck", send=True, again=tried.pk)

    @rule(
        number=index_of_two,
        person=index_of_two,
        came=strategies.sampled_from(["", "sent", "arrived"]),
    )
    def a_process_dies(self, number: int, person: int, came: str) -> None:
        """Leave an act as a process does that dies before, or while, it sends."""
        act = self.pressed(number, person, "Stuck", send=False)
        if act is None or not came:
            return
        now = db_threads.now()
        with transaction.atomic():
            mark_changed([act.run_id])
            Abort.objects.filter(pk=act.pk).update(sent_at=now, claimed_at=now, send_count=1)
            act.add_event(EventType.SENT, now)
        if came == "sent":
            self.lost_sends[act.run.run_id] += 1
        else:
            run = self.run(number)
            at = (
                run.stage.pipeline.project.slug,
                run.stage.pipeline.slug,
                run.stage.confirmed_path_segment,
            )
            with contextlib.suppress(NorthflankError):
                self.live.run(lambda: self.live.connection.client.abort_run(*at, run.run_id))

    def pressed(
        self, number: int, person: int, reason: str, *, send: bool, again: int | None = None
    ) -> Abort | None:
        """Press, and return the act where this made one; it is made whenever it may be."""
        run, user = self.run(number), self.people[person]
        may = permissions.abort_permission(user, run.stage).allowed
        given = bool(reason) or not aborts.reason_required(run.stage)
        under_way = Abort.objects.open().filter(run=run).first()
        try:
            pressed = aborts.request_abort(run, AbortRequest(user, reason), retry_of_pk=again)
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
            assert pressed.is_new
        if send and pressed.is_new:  # who joins waits for whoever made it, and that one may be dead
            self.live.run(lambda: aborts.wait_for_answer(pressed))
        return pressed.abort if pressed.is_new else None

    # --- the rest --------------------------------------------------------------------------------

    @rule(fault=read_faults)
    def the_worker_looks_after_aborts(self, fault: str) -> None:
        with self.faults(f"{fault}@GET" if fault else ""):
            look_after(self.live)

    @rule(number=index_of_two, person=index_of_two, fault=abort_faults)
    def several_workers_look_after_aborts_while_somebody_presses(
        self, number: int, person: int, fault: str
    ) -> None:
        run, user = self.run(number), self.people[person]

        def press() -> int | None:
            with contextlib.suppress(aborts.NotAllowed, aborts.NotInFlight, aborts.ReasonMissing):
                pressed = aborts.request_abort(run, AbortRequest(user, "Stuck"))
                return pressed.abort.pk if pressed.is_new else None
            return None

        async def at_once() -> None:
            async def press_and_send() -> None:
                if (act := await run_in_db_thread(press)) is not None:
                    await aborts.send_abort(self.live.connection, act)

            looks = [aborts.reconcile_open_aborts(self.live.connection) for _ in range(3)]
            await asyncio.gather(press_and_send(), *looks)

        with self.faults(f"{fault}@/abort" if fault else "", "latency:0.02@/abort"):
            self.live.run(at_once)

    @rule()
    def the_only_process_starts_anew(self) -> None:
        aborts.release_all_leases()
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
    def all_invariants_hold(self) -> None:
        self.at_most_one_open_abort_per_run()
        self.each_send_is_an_event_within_the_limit()
        self.aborts_of_one_run_never_overlap()
        self.settled_aborts_never_change()
        self.every_abort_message_is_true()

    def at_most_one_open_abort_per_run(self) -> None:
        open_acts = list(Abort.objects.open().values_list("run", flat=True))
        assert len(open_acts) == len(set(open_acts))

    def each_send_is_an_event_within_the_limit(self) -> None:
        sent = Counter[str]()
        for act in Abort.objects.select_related("run").prefetch_related("events"):
            lines = sum(event.event_type == EventType.SENT for event in act.events.all())
            assert act.send_count == lines <= resend_policy.MAX_SENDS
            sent[act.run.run_id] += lines
        for run in self.runs:
            arrived = self.live.sandbox.abort_request_counts[run.run_id]
            assert arrived + self.lost_sends[run.run_id] == sent[run.run_id]

    def aborts_of_one_run_never_overlap(self) -> None:
        client = self.live.connection.client
        assert isinstance(client, CountingClient)
        assert max(client.at_once.values(), default=0) <= 1

    def settled_aborts_never_change(self) -> None:
        for row in Abort.objects.exclude(settled_at=None).values():
            assert self.settled_rows.setdefault(row["id"], row) == row

    def every_abort_message_is_true(self) -> None:
        for act in Abort.objects.select_related("run").prefetch_related("events"):
            truth.assert_abort_is_consistent(
                act,
                list(act.events.all()),
                status=act.run.status,
                posts=self.live.sandbox.abort_request_counts[act.run.run_id],
                gone=act.run.removed_at is not None,
            )

    def run(self, number: int) -> Run:
        return Run.objects.with_stage().get(pk=self.runs[number % len(self.runs)].pk)

    @contextlib.contextmanager
    def faults(self, *wanted: str) -> Any:
        self.live.sandbox.faults = [parse_fault(fault) for fault in wanted if fault]
        try:
            yield
        finally:
            self.live.sandbox.faults = []
            self.live.sandbox.rate_limit_window.request_count = 0


def test_every_reachable_abort_state_has_a_true_message(
    live: Live, manager: User, settings: Any
) -> None:
    colleague = User.objects.create_user("colleague", password="colleague")
    colleague.groups.set(manager.groups.all())
    counting_client = CountingClient(
        live.sandbox.options.token, base_url=live.upstream_url, timeout_seconds=TIMEOUT_SECONDS,
        on_call=live.connection.unrecorded_calls.append,
    )  # fmt: skip
    counting_client.under_way, counting_client.at_once = Counter(), Counter()
    replace_client(live, counting_client)
    run_state_machine_as_test(
        type("Living", (CreateApiClient,), {"live": live, "settings": settings}),
        settings=hypothesis.settings(
            max_examples=40,
            stateful_step_count=20,
            phases=[Phase.generate],  # no shrinking: a step is a dozen real requests
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
