"""Notices: rules, channels, the form of a rule, and tests; for administrators."""

from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.accounts import rights_changes
from dashboard.accounts.administration import administrators
from dashboard.accounts.administration.administrators import Author, Conflict
from dashboard.db import threads as db_threads
from dashboard.models import NoticeMessage, NoticeRule, Project
from dashboard.models.notices import ATTENTION_EVENTS, NoticeEvent
from dashboard.notices import channel_states, rules
from dashboard.sync.reports import sync_state
from dashboard.texts.rich_text import ClockTime, MessageTable
from dashboard.web.components.rights import changes, place_form, texts
from dashboard.web.http import keys
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.lookup import PageNotFound
from dashboard.web.http.responses.htmx import is_htmx

_text = MessageTable(  # what came of a test
    {
        "waiting": gettext_lazy("Test of “%(channel)s”: about to be sent."),
        "no_leader": gettext_lazy(
            "Test of “%(channel)s”: not sent yet, since no sync worker is running."
        ),
        "sent": gettext_lazy("Test of “%(channel)s”: sent at %(time)s."),
        "failed": gettext_lazy("Test of “%(channel)s”: failed. %(reason)s"),
    }
)
_UNLISTED = {"invalid_choice": gettext_lazy("Choose from the list.")}
_CLOCK = forms.TimeInput({"type": "time"}, "%H:%M")


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a rule, which can keep a channel that is not set any more."""

    channel = forms.ChoiceField(label=gettext_lazy("Channel"), error_messages=_UNLISTED)
    stage = forms.ChoiceField(
        label=gettext_lazy("Stage"),
        choices=place_form.STAGES,
        required=False,
        error_messages=_UNLISTED,
    )
    project = place_form.ProjectField(
        Project.objects.order_by("name", "slug"),
        label=gettext_lazy("Project"),
        required=False,
        empty_label=gettext_lazy("All projects"),
        error_messages=_UNLISTED,
    )
    events = forms.MultipleChoiceField(
        choices=NoticeEvent.choices,
        widget=forms.CheckboxSelectMultiple,
        error_messages=_UNLISTED | {"required": gettext_lazy("Choose at least one event.")},
    )
    quiet_from = forms.TimeField(required=False, widget=_CLOCK)
    quiet_until = forms.TimeField(required=False, widget=_CLOCK)

    class Meta:
        model = NoticeRule
        fields = ("channel", "stage", "project", "events", "quiet_from", "quiet_until")

    def __init__(self, rule: NoticeRule, data: Any = None) -> None:
        super().__init__(data, instance=rule, auto_id="%s", label_suffix="")
        names = {name: name for name in settings.NOTIFY_URLS}
        if rule.channel:
            names.setdefault(rule.channel, _("%(name)s (not set)") % {"name": rule.channel})
        self.fields["channel"].choices = list(names.items())  # type: ignore[attr-defined]

    def clean(self) -> None:
        """Refuse one time without the other, and no time between them."""
        start, end = (self.cleaned_data.get(name) for name in ("quiet_from", "quiet_until"))
        if {"quiet_from", "quiet_until"} & self.errors.keys():
            return
        if (start is None) != (end is None):
            self.add_error("quiet_until", _("Enter both times, or none."))
        elif start is not None and start == end:
            self.add_error("quiet_until", _("Quiet hours cannot end when they begin."))


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def notices(request: HttpRequest, key: int | None = None) -> HttpResponse:
    """Show all rules, or one (GET); add a rule, or change or delete this one (POST)."""
    rule = _get_rule(key)
    if request.method != "POST":
        return _render(request, key)
    form, version = RuleForm(rule, request.POST), request.POST.get("version", "")
    is_deletion = key is not None and request.POST.get("action") == "delete"

    def change(author: Author) -> None:
        if is_deletion:
            rules.delete(author, rule, version)
        elif key is None:
            rules.add(author, rule)
        else:
            rules.change(author, rule, version)

    def show(error: str, status: int) -> HttpResponse:
        chosen = {} if status == Conflict.status else {"form": form}
        return _render(request, key, error, status, **chosen)

    if not is_deletion and not form.is_valid():
        return show("", 422)
    text = _("Rule deleted.") if is_deletion else _("Saved.")
    return make_change(request, change, text, reverse("notices"), show)


@require_POST
@for_administrators
def notice_test(request: HttpRequest, key: int) -> HttpResponse:
    """Have a test sent to a rule's channel; the page then says what came of it."""
    rule, address = _get_rule(key), reverse("notices")
    return make_change(
        request,
        lambda author: rules.store_test(author, rule),
        "",
        lambda message: f"{address}?test={message.pk}",
        lambda error, status: _render(request, None, error, status),
    )


def _get_rule(key: int | None) -> NoticeRule:
    if key is None:
        return NoticeRule(events=list(ATTENTION_EVENTS))
    rule = NoticeRule.objects.select_related("project").filter(pk=key).first()
    if rule is None:
        raise PageNotFound(_("There is no such rule any more."), (_("Notices"), reverse("notices")))
    return rule


def _render(
    request: HttpRequest, key: int | None, error: str = "", status: int = 200, **shown: Any
) -> HttpResponse:
    """Render the page; `error` says what was not changed, and why, and `shown` what was entered."""
    rule = _get_rule(key)
    context = {
        "rule": rule,
        "form": RuleForm(rule),
        "edit_permission": administrators.change_permission(),
        "error": error,
        **shown,
    }
    if key is not None:
        subject = rights_changes.notice_rule(key)
        context |= {"version": rights_changes.version(subject), **changes.recent(subject)}
    else:
        context["rows"] = list(map(_row, NoticeRule.objects.select_related("project")))
        context["channels"] = channel_states.load()
        context["test"] = _test(request.GET.get("test", ""))
    part = "#test" if is_htmx(request) and context.get("test") else ""
    return render(request, f"pages/notices.html{part}", context, status=status)


def _row(rule: NoticeRule) -> dict[str, Any]:
    labels = dict(NoticeEvent.choices)
    return {
        "rule": rule,
        "place": texts.place_text(rule.stage, str(rule.project or "")),
        "events": " · ".join(str(labels.get(event, event)) for event in rule.events),
        "has_channel": rule.channel in settings.NOTIFY_URLS,
    }


def _test(key: str) -> dict[str, Any] | None:
    """Return what came of a test as a text with its tone; None if there is no such test."""
    tests = NoticeMessage.objects.filter(event="", pk=keys.parse_pk(key) or 0)
    if (message := tests.first()) is None:
        return None
    now = db_threads.now()
    if message.sent_at:
        tone, outcome = "good", "sent"
    elif message.error:
        tone, outcome = "bad", "failed"
    elif sync_state.load(now).is_running:
        tone, outcome = "info", "waiting"
    else:
        tone, outcome = "warning", "no_leader"
    time = ClockTime(message.sent_at, now) if message.sent_at else ""
    text = _text(outcome, channel=message.channel, reason=message.error, time=time)
    return {"tone": tone, "text": text, "is_settled": message.next_try_at is None}
