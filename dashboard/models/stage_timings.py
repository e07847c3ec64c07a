"""Typical durations per stage: observed in its latest successes, or overridden by a user."""

from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.db.prepared import update_row
from dashboard.models.catalog import Stage
from dashboard.models.fast_loading import FastLoading
from dashboard.models.runs import Run
from dashboard.models.typical_duration import TypicalDuration

if TYPE_CHECKING:
    from django_stubs_ext import StrPromise  # part of the stubs, absent at runtime

MIN_OVERRIDE_SECONDS, MAX_OVERRIDE_SECONDS = 1, 30 * 24 * 3600  # limits of an override, in seconds
# Pairs of override fields: the median, and the longest typical duration.
OVERRIDES = (
    ("override_run_median", "override_run_p95"),
    ("override_queue_median", "override_queue_p95"),
    ("override_approval_median", "override_approval_p95"),
)


def _override_field(verbose_name: "StrPromise") -> "models.FloatField[float | None, float | None]":
    limits = [MinValueValidator(MIN_OVERRIDE_SECONDS), MaxValueValidator(MAX_OVERRIDE_SECONDS)]
    return models.FloatField(verbose_name, null=True, blank=True, validators=limits)


class StageTiming(FastLoading):
    """The typical durations of one stage, all in seconds."""

    stage = models.OneToOneField(Stage, models.CASCADE, related_name="timing")
    observed_run_median = models.FloatField(null=True)  # From start to end, without approvals.
    observed_run_p95 = models.FloatField(null=True)
    observed_queue_median = models.FloatField(null=True)  # From a run's creation to its start.
    observed_queue_p95 = models.FloatField(null=True)
    observed_steps = models.JSONField(default=dict)  # Median and p95 of each step.
    success_count = models.PositiveIntegerField(default=0)  # Number of successes in the baseline.
    detail_count = models.PositiveIntegerField(default=0)  # Number of successes with known steps.
    # Latest success in the baseline.
    last_success = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="+")
    observed_at = models.DateTimeField(null=True)
    approval_keys = models.JSONField(default=list)  # Keys of the steps that are approvals.

    override_run_median = _override_field(gettext_lazy("typical duration, in seconds"))
    override_run_p95 = _override_field(gettext_lazy("95% of runs take at most, in seconds"))
    override_queue_median = _override_field(gettext_lazy("typical queue time, in seconds"))
    override_queue_p95 = _override_field(gettext_lazy("95% of runs wait at most, in seconds"))
    override_approval_median = _override_field(gettext_lazy("typical approval time, in seconds"))
    override_approval_p95 = _override_field(
        gettext_lazy("95% of approvals take at most, in seconds")
    )

    class Meta:
        ordering: ClassVar = ["stage"]

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Reject a longest duration without its median, or below it, with an error at the field."""
        # Not in clean(), which does not get `exclude`: the fields with invalid numbers.
        super().clean_fields(exclude)
        errors = {}
        for median, longest in OVERRIDES:
            typical, longest_value = getattr(self, median), getattr(self, longest)
            if longest_value is None or median in (exclude or ()):
                continue
            if typical is None:
                errors[longest] = _("Enter the typical duration first.")
            elif longest_value < typical:
                errors[longest] = _("This cannot be shorter than the typical duration.")
        if errors:
            raise ValidationError(errors)

    @property
    def typical_run(self) -> TypicalDuration | None:
        """Typical working time of a run, without approvals: the override, else the baseline."""
        return _override(self.override_run_median, self.override_run_p95) or self.observed_run

    @property
    def observed_run(self) -> TypicalDuration | None:
        """Typical working time of a run, by the baseline."""
        return _typical_duration(self.observed_run_median, self.observed_run_p95)

    @property
    def typical_queue(self) -> TypicalDuration | None:
        """Typical time from creation to start of a run: the override, else the baseline."""
        return _override(self.override_queue_median, self.override_queue_p95) or self.observed_queue

    @property
    def observed_queue(self) -> TypicalDuration | None:
        """Typical time from creation to start of a run, by the baseline."""
        return _typical_duration(self.observed_queue_median, self.observed_queue_p95)

    def typical_approval(self, key: str = "") -> TypicalDuration | None:
        """Return the typical duration of an approval: the override, else the step's baseline."""
        override = _override(self.override_approval_median, self.override_approval_p95)
        return override or self.observed_step(key)

    def typical_step(self, key: str) -> TypicalDuration | None:
        """Return the typical duration of a step, by its key (steps.key).

        None while the duration of a run is overridden: the override means that the baseline does
        not hold, so only the whole run is judged, not its steps.
        """
        return None if self.override_run_median is not None else self.observed_step(key)

    def observed_step(self, key: str) -> TypicalDuration | None:
        """Return the typical duration of a step, by its key (steps.key) and the baseline."""
        median, p95 = self.observed_steps.get(key, (None, None))
        return _typical_duration(median, p95)

    def record_baseline(
        self,
        *,
        run: TypicalDuration | None,
        queue: TypicalDuration | None,
        steps: dict[str, TypicalDuration] | None,
        **fields: Any,
    ) -> None:
        """Save a new baseline with these fields; overrides stay unchanged.

        `steps` is None if too few details are available: the steps' previous baseline is kept.
        """
        fields["observed_run_median"], fields["observed_run_p95"] = _to_seconds(run)
        fields["observed_queue_median"], fields["observed_queue_p95"] = _to_seconds(queue)
        if steps is not None:
            fields["observed_steps"] = {key: list(_to_seconds(steps[key])) for key in steps}
        for name, value in fields.items():
            setattr(self, name, value)
        update_row(StageTiming, self.pk, **fields)


def _override(median: float | None, longest: float | None) -> TypicalDuration | None:
    return _typical_duration(median, median if longest is None else longest)


def _typical_duration(median: float | None, p95: float | None) -> TypicalDuration | None:
    if median is None or p95 is None:
        return None
    return TypicalDuration(timedelta(seconds=median), timedelta(seconds=p95))


def _to_seconds(typical: TypicalDuration | None) -> tuple[float | None, float | None]:
    if typical is None:
        return None, None
    return typical.median.total_seconds(), typical.p95.total_seconds()
