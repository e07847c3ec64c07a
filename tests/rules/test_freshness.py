"""What was promised, whether it was kept, and the one sentence on top of the status page."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dashboard.sync import freshness
from dashboard.sync.freshness import GRACE, HEARD_OF, Facts

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
WELL = Facts(stages=30, workers=1)


def test_what_was_never_read_was_never_promised() -> None:
    assert not freshness.is_late(None, NOW)


def test_a_promise_has_a_grace() -> None:
    assert not freshness.is_late(NOW - GRACE, NOW)
    assert freshness.is_late(NOW - GRACE - timedelta(milliseconds=1), NOW)


def test_a_worker_that_falls_silent_is_gone() -> None:
    assert freshness.is_alive(NOW - HEARD_OF, NOW)
    assert not freshness.is_alive(NOW - HEARD_OF - timedelta(milliseconds=1), NOW)


def test_a_worker_whose_clock_is_ahead_is_alive() -> None:
    assert freshness.is_alive(NOW + timedelta(minutes=5), NOW)


@pytest.mark.parametrize(
    ("facts", "tone", "text"),
    [
        (WELL, "good", "All 30 stages are as fresh as promised."),
        (replace(WELL, stages=1), "good", "The one stage is as fresh as promised."),
        (replace(WELL, stages=0), "info", "This token sees no pipeline."),
        (replace(WELL, incomplete="Incomplete: so."), "warning", "Incomplete: so."),
        (
            replace(WELL, incomplete="Incomplete: so.", failing=2),
            "warning",
            "Incomplete: so. 2 stages can’t be read.",
        ),
        (replace(WELL, late=1), "warning", "1 of 30 stages is older than promised."),
        (replace(WELL, late=3), "warning", "3 of 30 stages are older than promised."),
        (replace(WELL, failing=2), "warning", "2 stages can’t be read."),
        (
            replace(WELL, late=2, failing=1, lists_failing=1),
            "warning",
            (
                "2 of 30 stages are older than promised. 1 stage can’t be read. "
                "1 list of the catalogue can’t be read."
            ),
        ),
        (replace(WELL, trouble="It fell over.", late=3), "warning", "Northflank can’t be read"),
        (replace(WELL, workers=0), "bad", "Nobody reads Northflank: no worker is at work."),
        (
            replace(WELL, workers=0, heard_of=NOW, trouble="It fell over."),
            "bad",
            "Nobody reads Northflank: no worker was heard of",
        ),
    ],
)
def test_the_worst_is_said_first(facts: Facts, tone: str, text: str) -> None:
    said = freshness.verdict(facts)
    assert (said.tone, said.text) == (tone, text)


def test_a_refusal_is_said_with_its_end() -> None:
    until = NOW + timedelta(minutes=9)
    facts = replace(WELL, trouble="Too many.", trouble_since=NOW, refused_until=until)
    said = freshness.verdict(facts)
    assert (said.tone, said.since, said.until) == ("warning", NOW, until)
    assert "refuses requests" in said.text


def test_a_pause_is_told_from_an_hour_that_is_spent() -> None:
    until = NOW + timedelta(seconds=5)
    said = freshness.verdict(replace(WELL, refused_until=until, left=985, limit=1000))
    assert said.text == "Northflank asks for a pause (429), with 985 of 1,000 requests left,"
    spent = freshness.verdict(replace(WELL, refused_until=until, left=0, limit=1000))
    assert spent.text == "Northflank refuses requests, since this hour’s are spent,"


def test_after_a_pause_it_says_that_one_request_tries() -> None:
    said = freshness.verdict(replace(WELL, trouble="Too many.", probing=True))
    assert (said.tone, "one request tries" in said.text) == ("warning", True)


def test_where_all_is_well_nothing_is_said_in_part() -> None:
    assert freshness.in_part(WELL) == ""
