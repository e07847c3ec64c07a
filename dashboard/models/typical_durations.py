"""How long things usually take in a stage, learned from its latest successes or said by people."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.models.catalog import Stage
from dashboard.models.runs import Run
from dashboard.models.typical_duration import Usual

if TYPE_CHECKING:
    from django_stubs_ext import StrPromise  # of the stubs: only there while types are checked

SHORTEST, LONGEST = 1, 30 * 24 * 3600  # seconds that people may say
# What they may say, in pairs: what is usual, and the longest that still is.
SAID = (
    ("said_median", "said_p95"),
    ("said_queue_median", "said_queue_p95"),
    ("said_approval_median", "said_approval_p95"),
)


def _said(
    name: "StrPromise", told: "StrPromise"
) -> "models.FloatField[float | None, float | None]":
    limits = [MinValueValidator(SHORTEST), MaxValueValidator(LONGEST)]
    return models.FloatField(name, null=True, blank=True, validators=limits, help_text=told)


class StageTiming(models.Model):
    """What is usual in one stage; all durations are seconds."""

    stage = models.OneToOneField(Stage, models.CASCADE, related_name="timing")
    run_median = models.FloatField(null=True, help_text="From start to end, less approvals.")
    run_p95 = models.FloatField(null=True)
    queue_median = models.FloatField(null=True, help_text="From its creation to a run's start.")
    queue_p95 = models.FloatField(null=True)
    steps = models.JSONField(default=dict, help_text="Of each step: its median and p95.")
    successes = models.PositiveIntegerField(default=0, help_text="From how many it was learned.")
    details = models.PositiveIntegerField(default=0, help_text="Of how many the steps are known.")
    last_good = models.ForeignKey(
        Run, models.SET_NULL, null=True, related_name="+", help_text="The latest success."
    )
    learned_at = models.DateTimeField(null=True)
    approvals = models.JSONField(
        default=list, help_text="Which steps are approvals, by their keys."
    )

    said_median = _said(
        gettext_lazy("usual duration"),
        gettext_lazy(
            "How many seconds a run usually takes (600: ten minutes). Empty: as was learned."
        ),
    )
    said_p95 = _said(
        gettext_lazy("longest usual duration"),
        gettext_lazy(
            "How many seconds all but a few runs take at most. Empty: the usual duration."
        ),
    )
    said_queue_median = _said(
        gettext_lazy("usual wait"),
        gettext_lazy("How many seconds a run usually waits to start. Empty: as was learned."),
    )
    said_queue_p95 = _said(
        gettext_lazy("longest usual wait"),
        gettext_lazy("How many seconds all but a few runs wait at most. Empty: the usual wait."),
    )
    said_approval_median = _said(
        gettext_lazy("usual time to approve"),
        gettext_lazy(
            "How many seconds people usually take. Empty: as was learned of each approval."
        ),
    )
    said_approval_p95 = _said(
        gettext_lazy("longest usual time to approve"),
        gettext_lazy(
            "How many seconds people take at most, but for a few times. Empty: the usual time."
        ),
    )

    class Meta:
        ordering: ClassVar = ["stage"]
        constraints: ClassVar = [
            models.CheckConstraint(
                name=f"{longest}_makes_sense",
                # Each says itself what is NULL: a check passes where it comes to that.
                condition=models.Q(**{median: None, longest: None})
                | models.Q(**{f"{median}__range": (SHORTEST, LONGEST), longest: None})
                | models.Q(
                    **{
                        f"{median}__isnull": False,
                        f"{longest}__isnull": False,
                        f"{median}__gte": SHORTEST,
                        f"{longest}__gte": models.F(median),
                        f"{longest}__lte": LONGEST,
                    }
                ),
            )
            for median, longest in SAID
        ]

    def __str__(self) -> str:
        return _("What is usual in %(stage)s") % {"stage": self.stage}

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Refuse a longest without its usual, or below it, with a word at the field."""
        # Not in clean(), which is not told of what was no number at all.
        super().clean_fields(exclude)
        errors = {}
        for median, longest in SAID:
            usual, most = getattr(self, median), getattr(self, longest)
            if most is None or median in (exclude or ()):
                continue
            if usual is None:
                errors[longest] = _("Say the usual one first: this goes with it.")
            elif most < usual:
                errors[longest] = _("This can't be shorter than the usual one.")
        if errors:
            raise ValidationError(errors)

    @property
    def said(self) -> bool:
        """Whether people have said anything of it."""
        return any(getattr(self, median) is not None for median, _ in SAID)

    @property
    def usual_run(self) -> Usual | None:
        """How long a run usually works: as people said or, where they did not, as was learned."""
        return _as_said(self.said_median, self.said_p95) or self.learned_run

    @property
    def learned_run(self) -> Usual | None:
        """How long a run usually works, as was learned."""
        return _usual(self.run_median, self.run_p95)

    @property
    def usual_queue(self) -> Usual | None:
        """How long a run usually waits until it starts: as people said, or as was learned."""
        return _as_said(self.said_queue_median, self.said_queue_p95) or self.learned_queue

    @property
    def learned_queue(self) -> Usual | None:
        """How long a run usually waits until it starts, as was learned."""
        return _usual(self.queue_median, self.queue_p95)

    def usual_approval(self, key: str = "") -> Usual | None:
        """How long people usually take to approve: as they said, or as was learned of the step."""
        said = _as_said(self.said_approval_median, self.said_approval_p95)
        return said or self.learned_step(key)

    def usual_step(self, key: str) -> Usual | None:
        """How long a step usually works, by its key (steps.key).

        None while people say how long a run takes: they say that what was learned does not hold,
        so its steps are judged with the run, and not by what was learned of them.
        """
        return None if self.said_median is not None else self.learned_step(key)

    def learned_step(self, key: str) -> Usual | None:
        """How long a step usually takes, by its key (steps.key), as was learned."""
        median, p95 = self.steps.get(key, (None, None))
        return _usual(median, p95)

    def learn(
        self,
        *,
        run: Usual | None,
        queue: Usual | None,
        steps: dict[str, Usual] | None,
        approvals: Collection[str],
        at: datetime,
    ) -> None:
        """Take over what was learned, and keep it; what people say is left as it is.

        `steps` is None where too few details are at hand: what was known of them is kept.
        """
        self.run_median, self.run_p95 = _seconds(run)
        self.queue_median, self.queue_p95 = _seconds(queue)
        if steps is not None:
            self.steps = {key: list(_seconds(usual)) for key, usual in steps.items()}
        self.approvals = sorted(approvals)
        self.learned_at = at
        self.save(update_fields=_LEARNED)


_LEARNED = (
    "run_median", "run_p95", "queue_median", "queue_p95", "steps", "approvals", "successes",
    "details", "last_good", "learned_at",
)  # fmt: skip


def _as_said(median: float | None, longest: float | None) -> Usual | None:
    return _usual(median, median if longest is None else longest)


def _usual(median: float | None, p95: float | None) -> Usual | None:
    if median is None or p95 is None:
        return None
    return Usual(timedelta(seconds=median), timedelta(seconds=p95))


def _seconds(usual: Usual | None) -> tuple[float | None, float | None]:
    if usual is None:
        return None, None
    return usual.median.total_seconds(), usual.p95.total_seconds()
