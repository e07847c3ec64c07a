"""State machine test: any runs, aborts and faults in any order; every state has a true message."""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import hypothesis
import pytest
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

from dashboard.aborts import resend_policy
from dashboard.aborts.reconcile import reconcile_open_aborts, release_all_leases
from dashboard.aborts.request import (
    AbortRequest,
    NotAllowed,
    NotInFlight,
    ReasonMissing,
    reason_required,
    request_abort,
)
from dashboard.aborts.send import send_abort, wait_for_response
from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.db.threads import run_in_db_thread
from dashboard.models import Abort, AbortEvent, RequestCounter, Run
from dashboard.models.abort_lifecycle import EventType
from dashboard.models.runs import mark_changed
from dashboard.northflank import NorthflankClient, NorthflankError, RunDetail
from dashboard.sandbox import parse_fault
from dashboard.sandbox.choices import DEFAULTS
from dashboard.sandbox.world import World
from dashboard.sync import mirror, missing_runs
from dashboard.sync.run_reader import read_run
from tests.support import abort_invariants
from tests.support.live import Live
from tests.support.live_runs import (
    LEDGER,
    SEARCH,
    append_only_disabled,
    create_run_in_flight,
    reconcile,
    replace_client,
)

ANSWER_TIMEOUT = 0.3  # seconds for which the dashboard waits for the answer to an abort
START_TIME = float(int(time.time()))
CRITICAL_SECONDS = 700  # seconds: longer than an abort may take

FAULTS = (
    "500", "502-html", "reset", "reset-after", "truncated", "not-json", "empty-body",
    "rate-limited", "bad-token", "error-string:404", "error-string:409",
    "reset:1", "reset-after:1",
)  # fmt: skip
abort_faults = strategies.sampled_from(["", "", "", *FAULTS])
read_faults = strategies.sampled_from(["", "", "", "503", "reset", "error-string:404"])
answers = strategies.sampled_from(["aborting", "unchanged", "aborted"])
concluded_answers = strategies.sampled_from(["200", "400", "404", "409"])
# Statuses that Northflank reports, whatever it reported before.
reported_statuses = strategies.sampled_from([
    ("running", False), ("aborting", False), ("hibernating", False), ("queued", False),
    ("aborted", True), ("success", True), ("failure", True), ("unknown", True),
])  # fmt: skip
index_of_two = strategies.integers(0, 1)  # of two runs, of two users


class CountingClient(NorthflankClient):
    """Counts the aborts that are under way at the same time, by run."""

    active: Counter[str]
    max_active: Counter[str]  # the most there were

    async def abort_run(
        self, project_id: str, pipeline_id: str, stage: str, run_id: str, **options: Any
    ) -> RunDetail:
        self.active[run_id] += 1
        self.max_active[run_id] = max(self.max_active[run_id], self.active[run_id])
        try:
            return await super().abort_run(project_id, pipeline_id, stage, run_id, **options)
        finally:
            self.active[run_id] -= 1


class ShortAnswerTimeout(httpx.AsyncHTTPTransport):
    """Waits for the answer to an abort only briefly, and as long as usual for all else.

    The time counts from when the abort has been sent, so that each one arrives, as the count of
    sends expects. A limit for the whole call could end on a busy computer before it is sent.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            request.extensions["timeout"]["read"] = ANSWER_TIMEOUT
        return await super().handle_async_request(request)


class AbortMachine(RuleBasedStateMachine):
    """Two runs, two users who may abort them, and an upstream that can answer anything.

    An abort's message is compared with Northflank's last answer.
    """

    live: Live
    settings: Any

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.settled_rows: dict[int, dict[str, Any]] = {}
        self.lost_sends = Counter[str]()  # sends whose process died before, by the run's id
        self.users = list(User.objects.order_by("pk"))

    @initialize(offset=strategies.integers(0, 999))
    def start_first_run(self, offset: int) -> None:
        # The same runs with the same course in an example that is repeated.
        now = START_TIME + offset
        self.live.sandbox.world = World(opened_at=START_TIME)
        self.live.sandbox.clock = lambda: now
        self.live.sandbox.abort_request_counts.clear()
        self.start()

    def teardown(self) -> None:
        self.live.sandbox.faults = []
        self.live.sandbox.choices.update(DEFAULTS)
        self.live.connection.outage = ""
        self.settings.READ_ONLY = False
        self.users[1].groups.set(self.users[0].groups.all())
        with append_only_disabled():
            AbortEvent.objects.all().delete()
            Abort.objects.update(again_of=None)
            Abort.objects.all().delete()
        Run.objects.all().delete()

    # --- runs ------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.runs) == 1)
    @rule()
    def start(self) -> None:
        place = (LEDGER, SEARCH)[
            len(self.runs)
        ]  # in SEARCH an abort requires a reason, and may fail
        self.runs.append(create_run_in_flight(self.live, place))

    @rule(number=index_of_two, seconds=strategies.sampled_from([2, 10, 70, 400, 3600]))
    def advance_both_clocks(self, number: int, seconds: int) -> None:
        previous_clock = self.live.sandbox.clock
        self.live.sandbox.clock = lambda: previous_clock() + seconds
        self.advance_our_clock(number, seconds)

    @rule(number=index_of_two, seconds=strategies.sampled_from([5, 10, 70, 200, CRITICAL_SECONDS]))
    def advance_our_clock(self, number: int, seconds: int) -> None:
        """Advance our clock, not Northflank's."""
        interval = timedelta(seconds=seconds)
        with append_only_disabled():
            for name in ("requested_at", "claimed_at", "sent_at", "responded_at"):
                Abort.objects.open().update(**{name: F(name) - interval})
            AbortEvent.objects.filter(abort__settled_at=None).update(
                occurred_at=F("occurred_at") - interval
            )
        for name in ("synced_at", "status_since", "detail_synced_at", "removed_at"):
            Run.objects.update(**{name: F(name) - interval})

    @rule(number=index_of_two, fault=read_faults)
    def read_one_run(self, number: int, fault: str) -> None:
        run = self.run(number)
        with self.faults(f"{fault}@GET" if fault else ""), contextlib.suppress(NorthflankError):
            self.live.run(lambda: read_run(self.live.connection, run))

    @rule(number=index_of_two)
    def read_list(self, number: int) -> None:
        stage = self.run(number).stage
        at = (stage.pipeline.project.slug, stage.pipeline.slug, stage.name)
        requested_at, request_seq = db_threads.now(), RequestCounter.take_next()
        page = self.live.run(lambda: self.live.connection.client.list_runs(*at, per_page=100))
        mirror.apply_runs(stage.pk, page.items, requested_at=requested_at, request_seq=request_seq)
        missing_runs.schedule_unlisted(
            stage.pk, page.items, requested_at=requested_at, request_seq=request_seq
        )

    @rule(number=index_of_two, reported=reported_statuses)
    def change_status(self, number: int, reported: tuple[str, bool]) -> None:
        run = self.run(number)
        at = (
            run.stage.pipeline.project.slug,
            run.stage.pipeline.slug,
            run.stage.name,
        )
        requested_at, request_seq = db_threads.now(), RequestCounter.take_next()
        detail = self.live.run(lambda: self.live.connection.client.get_run(*at, run.run_id))
        status, concluded = reported
        api_run = replace(detail.run, status=status, concluded=concluded)
        mirror.apply_detail(
            run.stage_id,
            replace(detail, run=api_run),
            requested_at=requested_at,
            request_seq=request_seq,
        )

    # --- requests --------------------------------------------------------------------------------

    @rule(
        number=index_of_two,
        user_number=index_of_two,
        reason=strategies.sampled_from(["", "Stuck"]),
        fault=abort_faults,
        answer=answers,
        concluded=concluded_answers,
    )
    def request_abort(
        self, number: int, user_number: int, reason: str, fault: str, answer: str, concluded: str
    ) -> None:
        with self.faults(f"{fault}*1@/abort" if fault else ""):
            self.live.sandbox.choices["abort-answer"] = answer
            self.live.sandbox.choices["abort-concluded"] = concluded
            self.create_abort(number, user_number, reason, send=True)

    @rule(number=index_of_two, user_number=index_of_two, fault=abort_faults, reading=read_faults)
    def abort_again(self, number: int, user_number: int, fault: str, reading: str) -> None:
        run = self.run(number)
        open_abort = Abort.objects.open().filter(run=run).first()
        if open_abort is None:
            return
        self.advance_our_clock(number, CRITICAL_SECONDS)
        open_abort.refresh_from_db()
        reconcile(self.live)
        faults = [f"{fault}*1@/abort" if fault else "", f"{reading}*1@GET" if reading else ""]
        with self.faults(*faults):
            self.create_abort(number, user_number, "Stuck", send=True, again_of_pk=open_abort.pk)

    @rule(
        number=index_of_two,
        user_number=index_of_two,
        sent=strategies.sampled_from(["", "sent", "arrived"]),
    )
    def kill_process(self, number: int, user_number: int, sent: str) -> None:
        """Create an abort as left by a process that died before, or while, sending it."""
        abort = self.create_abort(number, user_number, "Stuck", send=False)
        if abort is None or not sent:
            return
        now = db_threads.now()
        with transaction.atomic():
            mark_changed([abort.run_id])
            Abort.objects.filter(pk=abort.pk).update(sent_at=now, claimed_at=now, send_count=1)
            abort.add_event(EventType.SENT, now)
        if sent == "sent":
            self.lost_sends[abort.run.run_id] += 1
        else:
            run = self.run(number)
            at = (
                run.stage.pipeline.project.slug,
                run.stage.pipeline.slug,
                run.stage.name,
            )
            with contextlib.suppress(NorthflankError):
                self.live.run(lambda: self.live.connection.client.abort_run(*at, run.run_id))

    def create_abort(
        self,
        number: int,
        user_number: int,
        reason: str,
        *,
        send: bool,
        again_of_pk: int | None = None,
    ) -> Abort | None:
        """Request an abort, and return it if it is new; it must be new whenever that is allowed."""
        run, user = self.run(number), self.users[user_number]
        is_allowed = permissions.abort_permission(user, run.stage).allowed
        has_reason = bool(reason) or not reason_required(run.stage)
        open_abort = Abort.objects.open().filter(run=run).first()
        try:
            result = request_abort(
                run, AbortRequest(user, reason), again_of_pk=again_of_pk, mark_sent=send
            )
        except NotAllowed:
            assert not is_allowed
            return None
        except NotInFlight:
            assert not run.in_flight
            return None
        except ReasonMissing:
            assert not has_reason
            return None
        if open_abort is None:
            assert result.is_new
        if (
            send and result.is_new
        ):  # a joined request waits for the first process, which may be dead
            self.live.run(lambda: wait_for_response(result))
        return result.abort if result.is_new else None

    # --- the rest --------------------------------------------------------------------------------

    @rule(fault=read_faults)
    def reconcile_aborts(self, fault: str) -> None:
        with self.faults(f"{fault}@GET" if fault else ""):
            reconcile(self.live)

    @rule(number=index_of_two, user_number=index_of_two, fault=abort_faults)
    def reconcile_concurrently_with_request(
        self, number: int, user_number: int, fault: str
    ) -> None:
        run, user = self.run(number), self.users[user_number]

        def request() -> int | None:
            with contextlib.suppress(NotAllowed, NotInFlight, ReasonMissing):
                result = request_abort(run, AbortRequest(user, "Stuck"))
                return result.abort.pk if result.is_new else None
            return None

        async def run_all() -> None:
            async def request_and_send() -> None:
                if (abort := await run_in_db_thread(request)) is not None:
                    await send_abort(self.live.connection, abort)

            rounds = [reconcile_open_aborts(self.live.connection) for _ in range(3)]
            await asyncio.gather(request_and_send(), *rounds)

        with self.faults(f"{fault}@/abort" if fault else "", "latency:0.02@/abort"):
            self.live.run(run_all)

    @rule()
    def restart_process(self) -> None:
        release_all_leases()
        reconcile(self.live)

    @rule(enabled=strategies.booleans())
    def switch_read_only(self, enabled: bool) -> None:
        self.settings.READ_ONLY = not enabled

    @rule(granted=strategies.booleans())
    def change_permission(self, granted: bool) -> None:
        groups = Group.objects.filter(name=permissions.RELEASE_MANAGERS) if granted else []
        self.users[1].groups.set(groups)

    # --- invariants ------------------------------------------------------------------------------

    @invariant()
    def all_invariants_hold(self) -> None:
        self.at_most_one_open_abort_per_run()
        self.each_send_is_an_event_within_the_limit()
        self.aborts_of_one_run_never_overlap()
        self.settled_aborts_never_change()
        self.every_abort_message_is_true()

    def at_most_one_open_abort_per_run(self) -> None:
        open_aborts = list(Abort.objects.open().values_list("run", flat=True))
        assert len(open_aborts) == len(set(open_aborts))

    def each_send_is_an_event_within_the_limit(self) -> None:
        sent = Counter[str]()
        for abort in Abort.objects.select_related("run").prefetch_related("events"):
            send_events = sum(event.event_type == EventType.SENT for event in abort.events.all())
            assert abort.send_count == send_events <= resend_policy.MAX_SENDS
            sent[abort.run.run_id] += send_events
        for run in self.runs:
            received = self.live.sandbox.abort_request_counts[run.run_id]
            assert received + self.lost_sends[run.run_id] == sent[run.run_id]

    def aborts_of_one_run_never_overlap(self) -> None:
        client = self.live.connection.client
        assert isinstance(client, CountingClient)
        assert max(client.max_active.values(), default=0) <= 1

    def settled_aborts_never_change(self) -> None:
        for row in Abort.objects.exclude(settled_at=None).values():
            assert self.settled_rows.setdefault(row["id"], row) == row

    def every_abort_message_is_true(self) -> None:
        for abort in Abort.objects.select_related("run").prefetch_related("events"):
            abort_invariants.assert_abort_is_consistent(
                abort,
                list(abort.events.all()),
                status=abort.run.status,
                request_count=self.live.sandbox.abort_request_counts[abort.run.run_id],
                is_removed=abort.run.removed_at is not None,
            )

    def run(self, number: int) -> Run:
        return Run.objects.with_stage().get(pk=self.runs[number % len(self.runs)].pk)

    @contextlib.contextmanager
    def faults(self, *texts: str) -> Any:
        self.live.sandbox.faults = [parse_fault(fault) for fault in texts if fault]
        try:
            yield
        finally:
            self.live.sandbox.faults = []
            self.live.sandbox.rate_limit_window.request_count = 0


@pytest.mark.slow
def test_every_reachable_abort_state_has_a_true_message(
    live: Live, manager: User, settings: Any
) -> None:
    colleague = User.objects.create_user("colleague", password="colleague")
    colleague.groups.set(manager.groups.all())
    counting_client = CountingClient(
        live.sandbox.options.token, base_url=live.upstream_url, transport=ShortAnswerTimeout(),
        on_call=live.connection.unrecorded_calls.append,
    )  # fmt: skip
    counting_client.active, counting_client.max_active = Counter(), Counter()
    replace_client(live, counting_client)
    run_state_machine_as_test(
        type("Living", (AbortMachine,), {"live": live, "settings": settings}),
        settings=hypothesis.settings(
            max_examples=20,
            stateful_step_count=20,
            phases=[Phase.generate],  # no shrinking: a step is a dozen real requests
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
