"""My account: one's sessions and API tokens; change one's password, end and revoke them."""

from functools import partial
from typing import Any

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.password_validation import password_validators_help_texts
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.accounts import api_tokens as token_rules
from dashboard.accounts import sessions
from dashboard.accounts.authentication import password_change
from dashboard.accounts.authentication.password_change import CheckedChange
from dashboard.db.threads import now
from dashboard.web.components import api_tokens
from dashboard.web.http import errors
from dashboard.web.http.authentication import password_checks
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address


class PasswordForm(PasswordChangeForm):
    """Django's form without the check of the old password, which waits for its turn."""

    error_messages = PasswordChangeForm.error_messages | {
        "password_incorrect": gettext_lazy("Wrong password."),
        "password_mismatch": gettext_lazy("The two new passwords differ."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["old_password"].widget.attrs["autofocus"]  # the page shows more
        self.fields["new_password2"].help_text = ""

    def clean_old_password(self) -> str:
        password: str = self.cleaned_data["old_password"]
        return password


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def my_account(request: HttpRequest) -> HttpResponse:
    """Show the account of the signed-in user; a POST changes the password.

    A wrong or unsuitable password gets 200 and the form, a throttled attempt 429, and one that
    finds the password queue full 503, both with Retry-After.
    """
    user = signed_in_user(request)
    if request.method != "POST":
        return _render(request, PasswordForm(user))
    if reason := password_change.denied_reason(user):
        return errors.forbidden(request, str(reason))
    form = PasswordForm(user, request.POST)
    if not form.is_valid():
        return _render(request, form)
    attempt = password_checks.own_attempt(request)
    passwords = form.cleaned_data["old_password"], form.cleaned_data["new_password1"]
    wrong = str(form.error_messages["password_incorrect"])
    return password_checks.check_attempt(
        attempt,
        partial(password_change.check, user, attempt, *passwords),
        then=partial(_save_password, request),
        wrong=lambda: _refuse(request, form, wrong, "old_password"),
        render=partial(_refuse, request, form),
    )


def _save_password(request: HttpRequest, change: CheckedChange) -> HttpResponse:
    user = signed_in_user(request)
    # In one transaction, so that another tab of this session is not signed out meanwhile.
    with transaction.atomic():
        is_changed = password_change.save(
            user,
            change,
            request.session.session_key,
            now(),
            client_address=client_address(request),
        )
        if not is_changed:
            text = _("Password not saved: your account was changed at the same time. Try again.")
            return _redirect_to_page(request, text, tone="warning")
        update_session_auth_hash(request, user)
        response = _redirect_to_page(
            request, _("Password changed. Your other sessions have ended.")
        )
        password_checks.save_session(request, response)
    return response


def _render(request: HttpRequest, form: PasswordForm) -> HttpResponse:
    user, at = signed_in_user(request), now()
    session_key = request.session.session_key
    context = {
        "form": form,
        "password_denied_reason": password_change.denied_reason(user),
        "password_rules": password_validators_help_texts(),
        "sessions": [
            (session, session.pk == session_key) for session in sessions.valid_sessions(user, at)
        ],
        **api_tokens.context(user, lambda token: reverse("token_revoke", args=[token.pk])),
    }
    return render(request, "pages/accounts/my_account.html", context)


def _refuse(
    request: HttpRequest, form: PasswordForm, message: str, field: str | None = None
) -> HttpResponse:
    form.add_error(field, message)
    return _render(request, form)


def _redirect_to_page(request: HttpRequest, text: str, *, tone: str = "good") -> HttpResponse:
    """Show the page with a message, by a 303, so that reloading it repeats nothing."""
    messages.add_message(request, messages.INFO, text, extra_tags=tone)
    response = redirect("my_account")
    response.status_code = 303
    return response


@require_POST
def end_session(request: HttpRequest, public_id: str) -> HttpResponse:
    """End one of the user's sessions."""
    user, address = signed_in_user(request), client_address(request)
    if not sessions.end(user, public_id, now(), client_address=address):
        raise Http404
    return _redirect_to_page(request, _("Session ended."))


@require_POST
def end_other_sessions(request: HttpRequest) -> HttpResponse:
    """End all of the user's sessions but this one."""
    user, address = signed_in_user(request), client_address(request)
    key = request.session.session_key
    ended = sessions.end_others(user, key, now(), client_address=address)
    text = ngettext("%(n)d other session ended.", "%(n)d other sessions ended.", ended)
    return _redirect_to_page(request, text % {"n": ended})


@require_POST
def token_revoke(request: HttpRequest, key: int) -> HttpResponse:
    """Revoke one of the user's API tokens."""
    user, address = signed_in_user(request), client_address(request)
    token = get_object_or_404(user.api_tokens, pk=key)
    detail = "On My account."
    token_rules.revoke(token, now(), changed_by=user, client_address=address, detail=detail)
    return _redirect_to_page(request, _("Token “%(name)s” revoked.") % {"name": token.name})
