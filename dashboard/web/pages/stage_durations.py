"""The usual durations of a stage: what was learned, and the form of overrides of it."""

from collections.abc import Iterable

import structlog
from django import forms
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import permissions
from dashboard.accounts.administration import administrators
from dashboard.accounts.administration.administrators import Author
from dashboard.models import Run, Stage, StageTiming
from dashboard.models.runs import mark_changed
from dashboard.models.stage_timings import OVERRIDES
from dashboard.models.typical_duration import TypicalDuration
from dashboard.texts import durations
from dashboard.web.http import links, lookup
from dashboard.web.http.administrators import for_administrators, make_change

log = structlog.get_logger(__name__)


class OverrideForm(forms.ModelForm):  # type: ignore[type-arg]
    """What replaces the baseline of a stage, in seconds; empty: nothing."""

    class Meta:
        model = StageTiming
        fields = tuple(name for pair in OVERRIDES for name in pair)


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def stage_durations(request: HttpRequest, /, **ids: str) -> HttpResponse:
    """Show what is usual in a stage (GET), or override it (POST)."""
    stage = lookup.get_stage_or_404(permissions.for_user(request.user), **ids)
    timing = StageTiming.objects.filter(stage=stage).first() or StageTiming(stage=stage)
    if request.method != "POST":
        return _render(request, timing, OverrideForm(instance=timing))
    form = OverrideForm(request.POST, instance=timing)
    if not form.is_valid():
        return _render(request, timing, form, status=422)
    return make_change(
        request,
        lambda author: _save(author, stage, form),
        _("Saved. Runs in flight are checked against it within seconds."),
        reverse("stage_durations", args=links.stage_url_args(stage)),
        lambda error, status: _render(request, timing, form, error, status),
    )


def _save(author: Author, stage: Stage, form: OverrideForm) -> None:
    """Save what was changed, and mark the stage's runs in flight as changed."""
    administrators.require(administrators.change_permission())
    changed = {name: form.cleaned_data[name] for name in form.changed_data}
    with transaction.atomic():
        StageTiming.objects.update_or_create(stage=stage, defaults=changed)
        mark_changed(Run.objects.in_flight().filter(stage=stage).values_list("pk", flat=True))
    log.info(
        "stage_timing.overridden",
        stage=str(stage),
        by=author.user.username,
        client_address=author.client_address,
        **changed,
    )


def _render(
    request: HttpRequest,
    timing: StageTiming,
    form: OverrideForm,
    error: str = "",
    status: int = 200,
) -> HttpResponse:
    baselines = [
        (_("Run duration"), [_format(timing.observed_run)]),
        (_("Queue time"), [_format(timing.observed_queue)]),
        (_("Approval time"), _format_steps(timing, timing.approval_keys)),
    ]
    fields = [[form[name] for name in pair] for pair in OVERRIDES]
    context = {
        "stage": timing.stage,
        "stage_url": links.stage_url(timing.stage),
        "parts": [(*baseline, pair) for baseline, pair in zip(baselines, fields, strict=True)],
        "steps": _format_steps(timing, timing.observed_steps.keys() - timing.approval_keys),
        "edit_permission": administrators.change_permission(),
        "error": error,
    }
    return render(request, "pages/stage_durations.html", context, status=status)


def _format_steps(timing: StageTiming, keys: Iterable[str]) -> list[str]:
    return [f"{key}: {_format(timing.observed_step(key))}" for key in sorted(keys)]


def _format(typical: TypicalDuration | None) -> str:
    return durations.format_typical(typical) if typical else _("too few successes so far")
