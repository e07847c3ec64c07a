"""Decide how often each stage is read, so that what happens at Northflank is seen soon. Pure.

A stage that changes at the rate r and is read at the interval I shows a change after I/2 on
average. Weighted by w, the wait for all changes is the sum of w*r*I/2. With a given number of reads
it is the least where each interval is proportional to 1/sqrt(w*r): four times the weight, or four
times the changes, halve the interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

# What waiting for a change costs, by stage name; a stage of another name counts as Development.
WEIGHTS = {"Production": 16.0, "Staging": 4.0, "Development": 1.0}
URGENT_WEIGHT = 64.0  # of a run that is overdue or aborting, in whichever stage

# Of a list of projects or pipelines: one of these changes once a week.
LIST_URGENCY = math.sqrt(WEIGHTS["Production"] / timedelta(days=7).total_seconds())

HISTORY = timedelta(days=14)  # the runs started in this time tell how often a stage's runs start
# The least rate of new runs that an account is taken to have, by stage: one in a month.
MIN_START_RATE = 1 / timedelta(days=30).total_seconds()
USUAL_DURATION = timedelta(minutes=20)  # of a run whose stage has no typical duration yet

# Between two reads of a run's detail that nobody watches: steps take longer.
MIN_STEPS_AGE = timedelta(minutes=1)

SHORTEST_INTERVAL = 5.0  # seconds
LONGEST_INTERVAL = 3600.0  # seconds, unless the requests do not suffice for it
# Share of the requests that is always left for stages, whatever else is read.
MIN_STAGES_SHARE = 0.25

# Seconds over which reads outside the plan are counted: less while less has passed since the start,
# but at least the second number, since the reads of a start would look like a flood.
OTHER_READS_TIME, MIN_OTHER_READS_TIME = 600.0, 120.0
BURST_PAYBACK_TIME = 300.0  # seconds in which reads ahead of the even rate are to be paid back

WATCHED_INTERVAL = 20.0  # seconds between two reads of what somebody looks at
WATCHED_AT_ONCE = timedelta(minutes=2)  # for this long; then what all watch shares
WATCHED_SHARE = 0.5  # this much of the requests
PIPELINE_SHARE = 0.25  # of a stage on a pipeline's page, beside 1 of one on its own page


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What tells when a run in flight changes next."""

    elapsed: timedelta  # since its start, or since its creation while it is queued
    usual: timedelta | None  # median duration of the stage's successes
    is_urgent: bool = False  # overdue or aborting
    is_started: bool = True  # else it has no steps yet


def start_rate(starts: int, account_rate: float) -> float:
    """Return the expected new runs a second of a stage with `starts` in HISTORY.

    `account_rate` is the mean of all stages, which one without history is taken to have.
    """
    prior = max(account_rate, MIN_START_RATE)
    return (starts + 1) / (HISTORY.total_seconds() + 1 / prior)


def end_rate(run: RunFacts) -> float:
    """Return the expected changes a second of a run in flight.

    One that has taken longer than usual is expected to take as long again.
    """
    usual = run.usual or USUAL_DURATION
    return 1 / max(usual, run.elapsed, timedelta(seconds=SHORTEST_INTERVAL)).total_seconds()


def urgency(name: str, new_runs: float, runs: Sequence[RunFacts] = ()) -> float:
    """Return the urgency of a stage's reads: intervals are proportional to 1/urgency.

    `new_runs` is its rate (`start_rate`), `runs` are those in flight.
    """
    weight = WEIGHTS.get(name, WEIGHTS["Development"])
    ends = sum((URGENT_WEIGHT if run.is_urgent else weight) * end_rate(run) for run in runs)
    started = sum(run.is_started for run in runs)
    if not started:
        return math.sqrt(weight * new_runs + ends)
    # Every second read is the detail of one of these: it shows no new run, and nothing of the
    # others. So a new run waits twice as long, and a change of one of n runs 2 - 1/n times.
    return math.sqrt(2 * weight * new_runs + (2 - 1 / started) * ends)


@dataclass(frozen=True, slots=True)
class Plan:
    """How often everything is read; times are seconds."""

    scale: float  # the interval of an urgency of 1
    longest: float
    watched: float = WATCHED_INTERVAL  # of what has been watched for long

    def interval(self, stage_urgency: float) -> float:
        """Return the time between two reads of a stage."""
        return min(max(self.scale / stage_urgency, SHORTEST_INTERVAL), self.longest)

    def watched_interval(self, share: float, watched_for: timedelta) -> float:
        """Return the time between two reads of what is watched with this share."""
        is_new = watched_for < WATCHED_AT_ONCE
        return (WATCHED_INTERVAL if is_new else self.watched) / share


def make_plan(
    urgencies: Sequence[float],
    requests_per_second: float,
    *,
    other_reads: float = 0.0,
    watched_shares: float = 0.0,
) -> Plan:
    """Return the plan that reads stages of these urgencies at this rate, evenly.

    `other_reads` are those a second that are not planned here, such as of details or after webhook
    events. `watched_shares` is the sum of the shares of all that is watched; it is read ahead of
    the rest, by at most WATCHED_SHARE of the requests.
    """
    rate = max(requests_per_second, 1e-6)
    rate = max(rate - other_reads, MIN_STAGES_SHARE * rate)
    watched = max(WATCHED_INTERVAL, watched_shares / (WATCHED_SHARE * rate))
    rate -= watched_shares / watched
    longest = max(LONGEST_INTERVAL, 2 * len(urgencies) / rate)
    return Plan(_fit_scale(urgencies, rate, longest), longest, watched)


def other_reads_rate(count: int, elapsed: float) -> float:
    """Return the rate of reads outside the plan, `elapsed` seconds after the first could be sent.

    `count` are those of the last OTHER_READS_TIME.
    """
    return count / min(max(elapsed, MIN_OTHER_READS_TIME), OTHER_READS_TIME)


def payback_rate(burst: float, margin: float) -> float:
    """Return the rate at which a plan leaves requests unused for those sent ahead of the even rate.

    Planned reads stop at the margin. A plan that did not slow down before would promise intervals
    that cannot be kept.
    """
    return max(burst - margin / 2, 0.0) / BURST_PAYBACK_TIME


def _fit_scale(urgencies: Sequence[float], rate: float, longest: float) -> float:
    """Return the scale at which reads of these urgencies add up to the rate."""
    if not urgencies:
        return longest
    low, high = SHORTEST_INTERVAL * min(urgencies), longest * max(urgencies)
    for _ in range(40):  # to a millionth
        middle = math.sqrt(low * high)
        plan = Plan(middle, longest)
        if sum(1 / plan.interval(stage_urgency) for stage_urgency in urgencies) > rate:
            low = middle
        else:
            high = middle
    return high
