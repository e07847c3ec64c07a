"""What is stored for /metrics (models/counters.py), as its counters and histograms."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from django.conf import settings
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from dashboard.models.counters import BUCKETS, SUM, CounterName

PLACE = ("project", "pipeline", "stage")
ERROR = ("cicd_system_component", "error_type")
_RESULTS = {"success": "success", "failure": "failure", "aborted": "cancellation",
            "skipped": "skip"}  # fmt: skip
# OpenMetrics allows an exemplar 128 characters; not all parsers know quotes in it.
_EXEMPLAR_ID = re.compile(r"[\w.-]{1,100}", re.ASCII)
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Place(NamedTuple):
    """Where a stage is: the values of PLACE."""

    project: str
    pipeline: str
    stage: str

    @property
    def pipeline_name(self) -> str:
        return f"{self.project}/{self.pipeline}"


class Row(NamedTuple):
    """A row of `MetricCounter`."""

    name: str
    stage_key: int
    labels: str
    value: float
    run_id: str
    run_seconds: float


type Series = tuple[int, tuple[str, ...]]  # the key of a stage, or 0, and labels


class StoredMetrics:
    """Stored rows; what is not of one of `places`, by the stage's key, is left out."""

    def __init__(self, rows: Iterable[Row], places: Mapping[int, Place]) -> None:
        self._places = places
        self._rows: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if not row.stage_key or row.stage_key in places:
                self._rows[row.name].append(row)

    def families(self, places: Iterable[Place]) -> Iterator[Metric]:
        """Yield all but the durations of runs; the counters of runs for all of `places`.

        Of a series that begins with 1, Prometheus sees no rise.
        """
        yield from self._notices()
        yield from self._runs(places)
        yield from self._aborts()
        yield self._histogram(CounterName.ABORT_DURATION, "From a request to the run's end.", ())
        name, call = CounterName.UPSTREAM_DURATION, ("call",)
        yield self._histogram(name, "Requests to Northflank that were sent.", call)
        requests = {
            labels: _cumulated(name, found)[-1][1]
            for (_, labels), found in _by_series(self._rows[name]).items()
        }
        yield counter("releaseflow_upstream_requests", "Requests to Northflank.", call, requests)
        name, text = CounterName.UPSTREAM_FAILED, "Requests to Northflank that failed."
        yield counter(name, text, ("call", "cause"), _sums(self._rows[name]))

    @cached_property
    def _durations(self) -> dict[Series, dict[str, Row]]:
        return _by_series(self._rows[CounterName.RUN_DURATION])

    def _runs(self, places: Iterable[Place]) -> Iterator[Metric]:
        outcomes = defaultdict(Counter[str], {place: Counter[str]() for place in places})
        for (key, (_, outcome)), found in self._durations.items():
            place, n = self._places[key], _cumulated(CounterName.RUN_DURATION, found)[-1][1]
            outcomes[place][outcome] += int(n)
        for name, text, outcome in (
            ("failed", "Runs that failed.", "failure"),
            ("aborted", "Runs that were aborted.", "aborted"),
            ("skipped", "Runs that Northflank skipped.", "skipped"),
        ):
            values = {place: found[outcome] for place, found in outcomes.items()}
            yield counter(f"releaseflow_runs_{name}", text, PLACE, values)
        values = {place: found.total() for place, found in outcomes.items()}
        yield counter("releaseflow_runs_concluded", "Runs that ended.", PLACE, values)
        errors: Counter[tuple[str, ...]] = Counter()
        for place, counts in outcomes.items():
            errors[place.pipeline_name, "failure"] += counts["failure"]
        labels = ("cicd_pipeline_name", "error_type")
        yield counter("cicd_pipeline_run_errors", "Runs that failed.", labels, errors)

    def _notices(self) -> Iterator[Metric]:
        for name, text in (
            (CounterName.NOTICES_SENT, "Messages that a channel has taken."),
            (CounterName.NOTICES_FAILED, "Attempts to send messages that failed."),
        ):
            sums = _sums(self._rows[name])
            values = {(channel,): sums.get((channel,), 0) for channel in settings.NOTIFY_URLS}
            yield counter(name, text, ("channel",), values)

    def _aborts(self) -> Iterator[Metric]:
        failed: Counter[tuple[str, ...]] = Counter()
        errors = _sums(self._rows[CounterName.SYSTEM_ERRORS])
        for row in self._rows[CounterName.ABORTS_FAILED]:
            way, event_type = _labels(row.labels)
            failed[*self._places[row.stage_key], way] += int(row.value)
            errors["abort", event_type] += row.value
        requested = {
            (*self._places[row.stage_key], *_labels(row.labels)): row.value
            for row in self._rows[CounterName.ABORTS_REQUESTED]
        }
        way_labels = (*PLACE, "way")
        name = CounterName.ABORTS_REQUESTED
        yield counter(name, "Aborts that were requested.", way_labels, requested)
        failed.update(dict.fromkeys(requested, 0))  # these begin with 0, too
        name, text = CounterName.ABORTS_FAILED, "Aborts not sent, refused, or not arrived."
        yield counter(name, text, way_labels, failed)
        yield counter(CounterName.SYSTEM_ERRORS, "Errors of the dashboard's parts.", ERROR, errors)

    def _histogram(self, name: CounterName, text: str, labels: Sequence[str]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=labels)
        for (_, values), found in _by_series(self._rows[name]).items():
            family.add_metric(values, _cumulated(name, found), _sum(found))
        return family

    def run_durations(self, *, with_exemplars: bool) -> str:
        """Return the durations of runs, in the exposition format.

        There may be 60,000 lines, for which prometheus-client takes ten times as long.
        """
        name = CounterName.RUN_DURATION
        lines = [
            f"# HELP {name} From a run's start to its end; if it never started, from its creation.",
            f"# TYPE {name} histogram",
        ]
        for (key, (state, outcome)), found in self._durations.items():
            place = self._places[key]
            labels = (
                f'cicd_pipeline_name="{place.pipeline_name.translate(_ESCAPES)}"'
                f',cicd_pipeline_result="{_RESULTS.get(outcome, "error")}"'
                f',cicd_pipeline_run_state="{state}"'
                f',deployment_environment_name="{place.stage.lower()}"'
            )
            buckets = _cumulated(name, found)
            lines += [
                f'{name}_bucket{{{labels},le="{bound}"}} {total}'
                + (_exemplar(found.get(bound)) if with_exemplars else "")
                for bound, total in buckets
            ]
            lines.append(f"{name}_count{{{labels}}} {buckets[-1][1]}")
            lines.append(f"{name}_sum{{{labels}}} {_sum(found)}")
        return "\n".join([*lines, ""])


def counter[Labels: tuple[str, ...]](
    name: str, text: str, labels: Sequence[str], values: Mapping[Labels, float]
) -> Metric:
    """Return a counter; `values` are by the values of its labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


@lru_cache(maxsize=1000)
def _labels(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _sums(rows: Iterable[Row]) -> dict[tuple[str, ...], float]:
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for row in rows:
        sums[_labels(row.labels)] += row.value
    return sums


def _by_series(rows: Iterable[Row]) -> dict[Series, dict[str, Row]]:
    """Return the rows of a histogram by their bound, or SUM, of each series."""
    series: dict[Series, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        labels = _labels(row.labels)
        series[row.stage_key, labels[:-1]][labels[-1]] = row
    return series


def _cumulated(name: CounterName, found: Mapping[str, Row]) -> list[tuple[str, float]]:
    """Return each bucket of a series with the number of all durations up to its bound."""
    total, buckets = 0.0, []
    for bound in (*map(str, BUCKETS[name]), "+Inf"):
        if bound in found:
            total += found[bound].value
        buckets.append((bound, total))
    return buckets


def _sum(found: Mapping[str, Row]) -> float:
    return found[SUM].value if SUM in found else 0.0


def _exemplar(row: Row | None) -> str:
    if row is None or not _EXEMPLAR_ID.fullmatch(row.run_id):
        return ""
    return f' # {{run_id="{row.run_id}"}} {row.run_seconds}'
