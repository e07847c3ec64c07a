"""Abort messages: every state has one, and none claims more than is known."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.aborts.messages import AbortMessage
from dashboard.aborts.timeline import TimelineEntry
from dashboard.models import Abort, AbortEvent, Run
from dashboard.models.abort_lifecycle import AbortState, EventType
from dashboard.runs import statuses
from dashboard.texts.rich_text import ClockTime, Value
from tests.support import messages

AT = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
TONES = {"info", "warning", "bad", "neutral"}
ANSWER = "Northflank has failed (500)."
OUTCOMES = ["", "hibernating", *statuses.RUN_STATUSES]


def abort(state: str, outcome: str = "", **fields: Any) -> Abort:
    defaults = {
        "requested_at": AT,
        "sent_at": AT,
        "responded_at": AT + timedelta(seconds=1),
        "settled_at": AT + timedelta(seconds=72),
        "response": ANSWER,
        "username": "ana",
        "reason": "Stuck",
    }
    return Abort(state=state, outcome=outcome, **defaults | fields)


def run(status: str = "running", *, concluded: bool = False, level: int = 0) -> Run:
    since = AT + timedelta(seconds=2)
    return Run(
        status=status, concluded=concluded, in_flight=not concluded, status_since=since,
        abort_severity=level,
    )  # fmt: skip


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def ended_run(status: str, seconds: float, **fields: Any) -> Run:
    """Return a run that concluded so many seconds after the request of the abort."""
    times = {"status_since": AT, "concluded_at": after(seconds)}
    return Run(status=status, concluded=True, in_flight=False, **times | fields)


def removed_run() -> Run:
    return Run(status="aborting", concluded=False, status_since=AT, removed_at=AT)


@pytest.mark.parametrize(("state", "outcome"), list(product(AbortState, OUTCOMES)))
def test_abort_message_in_every_state_is_a_complete_true_sentence(
    state: AbortState, outcome: str
) -> None:
    for settled, answered, sent in product([True, False], repeat=3):
        row = abort(
            state,
            outcome,
            settled_at=AT if settled else None,
            responded_at=AT if answered else None,
            sent_at=AT if sent else None,
        )
        for status, concluded, level in product(OUTCOMES[1:], [True, False], range(3)):
            message = abort_messages.describe(row, run(status, concluded=concluded, level=level))
            assert message.tone in TONES
            assert message.plain_text.endswith(".")
            assert "None" not in message.plain_text
            assert "  " not in message.plain_text
            if "Aborted after" in message.plain_text:
                assert (outcome, status, concluded) == ("aborted", "aborted", True)


@pytest.mark.parametrize(
    ("abort", "run", "keys", "params"),
    [
        (
            abort("requested", sent_at=None),
            run(),
            "requested",
            {"time": ClockTime(AT, AT)},
        ),
        (
            abort("requested"),
            run(),
            "sent",
            {"time": ClockTime(AT, AT)},
        ),
        (
            abort("accepted", settled_at=None),
            run(),
            "accepted",
            {"status": "running"},
        ),
        (abort("accepted"), run("aborting"), "aborting", {"time": ClockTime(after(2), AT)}),
        (
            abort("accepted"),
            run("aborting", level=1),
            "aborting overdue",
            {"time": "3 min"},
        ),
        (
            abort("accepted"),
            run("aborting", level=2),
            "aborting critical",
            {"time": "10 min"},
        ),
        (
            abort("concluded", "aborted"),
            run("aborted", concluded=True),
            "aborted",
            {"time": "1 min 12 s"},
        ),
        (
            abort("concluded", "success"),
            run("success", concluded=True),
            "failed",
            {"status": "succeeded", "time": "1 min 12 s"},
        ),
        # Until the run ended, whenever that was noticed.
        (abort("concluded", "aborted"), ended_run("aborted", 5), "aborted", {"time": "5 s"}),
        (
            abort("concluded", "success"),
            ended_run("success", 5),
            "failed",
            {"status": "succeeded", "time": "5 s"},
        ),
        # Times at which it did not end because of this abort, by clocks that differ or otherwise.
        (
            abort("concluded", "aborted"),
            ended_run("aborted", -5),
            "aborted",
            {"time": "1 min 12 s"},
        ),
        (
            abort("concluded", "aborted"),
            ended_run("aborted", 73),
            "aborted",
            {"time": "1 min 12 s"},
        ),
        (
            abort("concluded"),
            ended_run("success", 5, removed_at=AT),
            "removed",
            {"time": "1 min 12 s"},
        ),
        (abort("aborted_again"), ended_run("aborted", 5), "aborted_again", {"time": "1 min 12 s"}),
        (
            abort("concluded", "aborted"),
            run("success", concluded=True),
            "status_changed",
            {"before": "aborted", "now": "succeeded"},
        ),
        (
            abort("concluded"),
            removed_run(),
            "removed",
            {"time": "1 min 12 s"},
        ),
        (
            abort("too_late", "failure"),
            run("failure", concluded=True),
            "too_late",
            {"status": "failed"},
        ),
        (
            abort("too_late", "success", sent_at=None),
            run("success", concluded=True),
            "too_late",
            {"status": "succeeded"},
        ),
        (
            abort("too_late"),
            run(),
            "missing",
            {},
        ),
        (abort("refused"), run(), "refused", {"response": ANSWER}),
        (abort("not_sent", response="No way"), run(), "not_sent", {"why": "No way."}),
        (
            abort("not_sent", retry_at=AT + timedelta(minutes=40)),
            run(),
            "rate_limited",
            {"time": ClockTime(after(2400), AT)},
        ),
        (
            abort("not_sent", retry_at=AT + timedelta(days=1)),
            run(),
            "rate_limited",
            {"time": ClockTime(after(86400), AT)},
        ),
        (
            abort("accepted", requested_at=AT - timedelta(days=2), settled_at=None),
            run("aborting"),
            "aborting",
            {"time": ClockTime(after(2), after(-172800))},
        ),
        (
            abort("unknown", settled_at=None, send_count=2),
            run(),
            "doubtful resend",
            {"response": ANSWER, "n": 2, "most": 5, "time": "2 min"},
        ),
        (
            abort("unknown", settled_at=None, send_count=5),
            run(),
            "doubtful resend_refused",
            {"response": ANSWER, "n": 5, "most": 5, "time": "2 min"},
        ),
        (
            abort("unknown", settled_at=None, send_count=3),
            run(level=2),
            "doubtful no_resend",
            {"response": ANSWER, "n": 3, "most": 5, "time": "2 min"},
        ),
        (
            abort("unknown", settled_at=None, send_count=2, response_status=409),
            run(),
            "refused doubtful resend_refused",
            {"response": ANSWER, "n": 2, "most": 5, "time": "2 min"},
        ),
        (
            abort("unknown", settled_at=None, send_count=2, response_status=409),
            run(level=2),
            "refused doubtful no_resend",
            {"response": ANSWER, "n": 2, "most": 5, "time": "2 min"},
        ),
        (
            abort("unknown", send_count=5),
            run(),
            "not_arrived can_abort_again",
            {},
        ),
        (
            abort("unknown", send_count=1),
            run("aborting"),
            "not_arrived_but_stopped",
            {"status": "aborting"},
        ),
        (
            abort("unknown", send_count=1),
            run("aborted", concluded=True),
            "not_arrived_but_stopped",
            {"status": "aborted"},
        ),
        (
            abort("unknown", send_count=1),
            run("success", concluded=True),
            "not_arrived",
            {},
        ),
        (
            abort("requested", settled_at=None, sent_at=AT, send_count=2),
            run(),
            "sent",
            {"time": ClockTime(AT, AT)},
        ),
        (
            abort("accepted", settled_at=None, response_status=409),
            run("aborting"),
            "or_earlier already_aborting",
            {"time": ClockTime(after(2), AT)},
        ),
        (
            abort("accepted", settled_at=None, response_status=409, send_count=2),
            run("aborting"),
            "aborting",
            {"time": ClockTime(after(2), AT)},
        ),
        (
            abort("accepted", settled_at=None, response_status=409, send_count=2),
            run(),
            "accepted",
            {"status": "running"},
        ),
        (
            abort("aborted_again", response_status=409, send_count=2),
            run(),
            "aborted_again",
            {"time": "1 min 12 s"},
        ),
        (
            abort("aborted_again", response_status=200, send_count=2),
            run(),
            "aborted_again",
            {"time": "1 min 12 s"},
        ),
        (
            abort("aborted_again"),
            run(),
            "aborted_again",
            {"time": "1 min 12 s"},
        ),
        (
            abort("aborted_again", responded_at=None),
            run(),
            "aborted_again",
            {"time": "1 min 12 s"},
        ),
    ],
)
def test_abort_message_per_state_has_its_keys_and_parameters(
    abort: Abort, run: Run, keys: str, params: dict[str, Value]
) -> None:
    text = abort_messages.describe(abort, run).text
    assert messages.keys_and_params(text) == (keys, params)


@pytest.mark.parametrize(
    ("at", "text", "dated_text"),
    [
        (after(2400), "03:40:00", "2026-01-01 03:40:00 UTC"),
        (after(86400), "2 Jan 03:00:00", "2026-01-02 03:00:00 UTC"),
        (AT - timedelta(days=1), "31 Dec 2025 03:00:00", "2025-12-31 03:00:00 UTC"),
    ],
)
def test_abort_message_has_time_with_day_if_it_differs(
    at: datetime, text: str, dated_text: str
) -> None:
    message = abort_messages.describe(abort("not_sent", retry_at=at), run())
    assert message.plain_text == f"Not sent: rate limited by Northflank until {text}."
    assert message.dated_text == f"Not sent: rate limited by Northflank until {dated_text}."


@pytest.mark.parametrize("outcome", ["success", "failure", "skipped"])
def test_abort_message_for_run_that_ended_otherwise_is_loud(outcome: str) -> None:
    message = abort_messages.describe(abort("concluded", outcome), run(outcome, concluded=True))
    assert (message.is_unexpected, message.tone) == (True, "bad")


def test_abort_message_for_status_changed_to_success_after_abort_is_loud() -> None:
    message = abort_messages.describe(abort("concluded", "aborted"), run("success", concluded=True))
    assert (message.is_unexpected, message.tone) == (True, "bad")


def test_abort_message_for_aborted_run_is_neutral() -> None:
    message = abort_messages.describe(abort("concluded", "aborted"), run("aborted", concluded=True))
    assert (message.is_unexpected, message.tone) == (False, "neutral")


@pytest.mark.parametrize(("level", "tone"), [(0, "warning"), (1, "warning"), (2, "bad")])
def test_abort_message_tone_follows_severity(level: int, tone: str) -> None:
    assert abort_messages.describe(abort("accepted"), run("aborting", level=level)).tone == tone


def test_abort_message_for_concluded_run_without_answer_says_so() -> None:
    row = abort("concluded", "success", responded_at=None)
    message = abort_messages.describe(row, run("success", concluded=True))
    assert messages.keys(message.text) == "failed no_response"


def timeline_entry(event_type: str, detail: str = "", **fields: Any) -> TimelineEntry:
    event = AbortEvent(event_type=event_type, occurred_at=AT, detail=detail)
    [entry] = abort_timeline.entries(abort("requested", **fields), [event])
    assert entry.at == AT
    return entry


@pytest.mark.parametrize(
    ("event_type", "detail"), list(product(EventType, [*OUTCOMES, "Something"]))
)
def test_timeline_event_text_is_a_complete_sentence(event_type: EventType, detail: str) -> None:
    assert timeline_entry(event_type, detail).text.endswith(".")


@pytest.mark.parametrize(
    ("event_type", "detail", "key", "params"),
    [
        ("requested", "", "requested_reason", {"who": "ana", "reason": "Stuck"}),
        ("accepted", "running", "accepted_status", {"status": "running"}),
        ("concluded", "failure", "concluded_status", {"status": "failed"}),
        ("concluded", "", "concluded", {}),
        ("aborted_again", "ben", "aborted_again_detail", {"text": "ben."}),
        ("late_response", "aborting", "late_response_detail", {"text": "aborting."}),
        ("not_sent", "Sending timed out.", "not_sent_detail", {"text": "Sending timed out."}),
        ("adopted", "", "adopted", {}),
        ("late_response", "failure", "late_response_detail", {"text": "failed."}),
        ("refused", "failed to", "refused_detail", {"text": "failed to."}),
    ],
)
def test_timeline_event_has_its_key_and_parameters(
    event_type: str, detail: str, key: str, params: dict[str, Value]
) -> None:
    assert messages.keys_and_params(timeline_entry(event_type, detail).message) == (key, params)


@pytest.mark.parametrize(
    ("origin", "reason", "text"),
    [
        ("", "", "Requested by ana."),
        ("", "Stuck", "Requested by ana: “Stuck”."),
        ("API token", "", "Requested by ana (API token)."),
        ("API token", "Stuck", "Requested by ana (API token): “Stuck”."),
    ],
)
def test_timeline_begins_with_who_requested_it_from_where_and_why(
    origin: str, reason: str, text: str
) -> None:
    assert timeline_entry("requested", origin, reason=reason).text == text


@pytest.mark.parametrize(
    ("since", "start", "key"),
    [
        (AT - timedelta(hours=1), AT - timedelta(hours=1), "external"),
        (None, after(2), "or_earlier external"),
    ],
)
@pytest.mark.parametrize("level", range(3))
def test_external_abort_has_its_start_and_what_is_overdue(
    since: datetime | None, start: datetime, key: str, level: int
) -> None:
    subject = run("aborting", level=level)
    subject.aborting_since, subject.created_at = since, AT - timedelta(hours=2)
    message = abort_messages.describe_external(subject)
    ours = abort_messages.describe(abort("accepted", settled_at=None), run("aborting", level=level))
    first_keys, overdue_keys = messages.keys(message.text).split("external")
    assert f"{first_keys}external" == key
    first, *_ = messages.messages(message.text)
    assert first.params == {"time": ClockTime(start, subject.created_at)}
    assert message.tone == ours.tone
    # What is said of an overdue abort does not depend on who requested it.
    assert overdue_keys.split() == messages.keys(ours.text).split()[1:]


@pytest.mark.parametrize("started_at", [None, after(-600)], ids=["first abort", "second abort"])
@pytest.mark.parametrize("state", ["not_sent", "refused"])
@pytest.mark.parametrize(
    ("aborting_since", "key"),
    [(after(-60), "external_after_failure"), (None, "or_earlier external_after_failure")],
)
def test_run_that_aborts_in_spite_of_a_failed_abort_does_not_say_who_requested_it(
    state: str, started_at: datetime | None, aborting_since: datetime | None, key: str
) -> None:
    subject = run("aborting")
    subject.aborting_since, subject.created_at = aborting_since, AT - timedelta(hours=2)
    failed = abort(state, already_aborting_since=started_at)
    assert messages.keys(abort_messages.describe_external(subject, failed).text) == key


@pytest.mark.parametrize(
    ("responded_at", "keys"), [(AT, "removed"), (None, "removed no_response")], ids=["yes", "no"]
)
def test_abort_of_removed_run_says_whether_it_was_answered(
    responded_at: datetime | None, keys: str
) -> None:
    message = abort_messages.describe(abort("concluded", responded_at=responded_at), removed_run())
    assert (messages.keys(message.text), message.tone) == (keys, "warning")


@pytest.mark.parametrize(
    ("status_since", "aborting_since", "key", "at"),
    [
        (after(2), None, "aborting", after(2)),
        (AT, None, "aborting", AT),
        (after(2), after(-60), "aborting", after(-60)),
        (after(-5), None, "or_earlier aborting", after(-5)),
        (after(2), after(1), "aborting", after(2)),
    ],
    ids=["ours", "at once", "earlier", "about earlier", "ours, read later"],
)
def test_accepted_abort_of_aborting_run_says_since_when(
    status_since: datetime, aborting_since: datetime | None, key: str, at: datetime
) -> None:
    subject = run("aborting")
    subject.status_since, subject.aborting_since = status_since, aborting_since
    text = abort_messages.describe(abort("accepted", settled_at=None), subject).text
    assert messages.keys_and_params(text) == (key, {"time": ClockTime(at, AT)})


def test_refusal_names_northflank_once() -> None:
    message = abort_messages.describe(
        abort("refused", response="Northflank refused (409): no"), run()
    )
    assert message == AbortMessage("Northflank refused (409): no.", "bad")


def test_abort_that_the_rate_limit_kept_back_is_bad_news() -> None:
    message = abort_messages.describe(abort("not_sent", retry_at=after(60)), run())
    assert message.tone == "bad"


@pytest.mark.parametrize(
    ("latest", "is_external"),
    [
        (None, True),
        (abort("accepted", settled_at=None), False),
        (abort("unknown", settled_at=None), False),
        (abort("refused"), True),
        (abort("not_sent"), True),
        (abort("unknown"), False),  # it may have caused it
        (abort("concluded"), False),
    ],
    ids=["none", "accepted", "unconfirmed", "refused", "not sent", "not arrived", "concluded"],
)
def test_aborting_run_is_aborted_from_outside_unless_by_an_abort_made_here(
    latest: Abort | None, is_external: bool
) -> None:
    assert abort_messages.is_external(latest, run("aborting")) is is_external
    assert not abort_messages.is_external(latest, run())
    assert not abort_messages.is_external(latest, removed_run())


@pytest.mark.parametrize(
    ("answer", "why"),
    [("No", "No."), ("No.", "No."), ("No!", "No!"), ("Why?", "Why?"), ("No…", "No…")],
)
def test_answer_that_ends_like_a_sentence_gets_no_period(answer: str, why: str) -> None:
    message = abort_messages.describe(abort("not_sent", response=answer), run())
    assert messages.params(message.text) == {"why": why}
