"""What /metrics counts: counters and histograms that only grow, whatever was pruned or restarted.

They are stored where the thing happens, in its transaction. To add a counter: a name here, a line
in metrics/stored.py and docs/run/metrics.md, and `store([increment(…)])` where it happens.
"""

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, ClassVar

from django.db import connection, models

SUM = "sum"  # the last label of a histogram's sum, in place of a bucket


class CounterName(StrEnum):
    """The names, each with its labels; for those of a place, the stage comes apart."""

    # Histograms, of seconds.
    RUN_DURATION = "cicd_pipeline_run_duration_seconds"  # of a stage: state, outcome
    ABORT_DURATION = "releaseflow_abort_duration_seconds"
    UPSTREAM_DURATION = "releaseflow_upstream_request_duration_seconds"  # call
    # Counters.
    ABORTS_REQUESTED = "releaseflow_aborts_requested"  # of a stage: way
    ABORTS_FAILED = "releaseflow_aborts_failed"  # of a stage: way, type of the event
    NOTICES_SENT = "releaseflow_notices_sent"  # channel
    NOTICES_FAILED = "releaseflow_notices_failed"  # channel
    SYSTEM_ERRORS = "cicd_system_errors"  # component, error_type
    UPSTREAM_FAILED = "releaseflow_upstream_requests_failed"  # call, cause


# Upper bounds of the buckets, in seconds; the last has none.
BUCKETS = {
    CounterName.RUN_DURATION: (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0),
    CounterName.ABORT_DURATION: (5.0, 15.0, 30.0, 60.0, 180.0, 600.0),
    CounterName.UPSTREAM_DURATION: (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
}


class MetricCounter(models.Model):
    """One counter by its name, stage and labels; or one bucket, or the sum, of a histogram.

    A bucket contains what the next lower one does not. Without a row, it is 0.
    """

    name = models.CharField(max_length=80)
    stage_key = models.BigIntegerField(default=0)  # Key of the stage; 0: of none.
    labels = models.TextField()  # Values as a JSON list; of a histogram, its bound last.
    value = models.FloatField()
    run_id = models.TextField(blank=True)  # Of a bucket, the last run that it counts.
    run_seconds = models.FloatField(default=0)  # The duration of that run.

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["name", "stage_key", "labels"], name="metric_counter_unique"
            )
        ]


def increment(name: CounterName, *labels: str, stage: int = 0, by: float = 1) -> MetricCounter:
    """Return an increment of a counter, for `store`; `stage` is a key."""
    return MetricCounter(name=name, stage_key=stage, labels=json.dumps(labels), value=by)


def observe(
    name: CounterName, seconds: float, *labels: str, stage: int = 0, run_id: str = ""
) -> list[MetricCounter]:
    """Return the increments of a histogram by one duration, for `store`."""
    seconds = max(seconds, 0.0)  # the clocks of Northflank and the database differ
    bound = next((str(bound) for bound in BUCKETS[name] if seconds <= bound), "+Inf")
    bucket = increment(name, *labels, bound, stage=stage)
    bucket.run_id, bucket.run_seconds = run_id, seconds
    return [bucket, increment(name, *labels, SUM, stage=stage, by=seconds)]


def store(increments: Iterable[MetricCounter]) -> None:
    """Add increments to the stored counters; one statement, in the caller's transaction."""
    merged: dict[tuple[Any, ...], MetricCounter] = {}
    for row in increments:
        key = row.name, row.stage_key, row.labels
        if key in merged:
            row.value += merged[key].value
        merged[key] = row
    if not merged:
        return
    # In order, so that two transactions do not wait for each other.
    values = [
        value
        for key, row in sorted(merged.items())
        for value in (*key, row.value, row.run_id, row.run_seconds)
    ]
    sql = (
        "INSERT INTO dashboard_metriccounter"  # noqa: S608 - placeholders only
        " (name, stage_key, labels, value, run_id, run_seconds)"
        f" VALUES {', '.join(['(%s, %s, %s, %s, %s, %s)'] * len(merged))}"
        " ON CONFLICT (name, stage_key, labels) DO UPDATE"
        " SET value = dashboard_metriccounter.value + excluded.value,"
        " run_id = excluded.run_id, run_seconds = excluded.run_seconds"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
