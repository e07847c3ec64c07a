"""API tokens."""

from django.contrib import admin
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.accounts import api_tokens
from dashboard.admin.base import ModelAdmin, ReadOnlyMixin
from dashboard.db import threads as db_threads
from dashboard.models import ApiToken
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyMixin, ModelAdmin):
    """API tokens, for revoking only: `manage.py token` makes them and prints their secret."""

    list_display = (
        "name",
        "prefix",
        "user",
        "scope",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
    )
    list_filter = ("scope", ("revoked_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "prefix", "user__username")
    list_select_related = ("user",)
    fields = list_display
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dashboard.change_apitoken")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # Only as part of deleting its account.
        page = request.resolver_match.url_name if request.resolver_match else None
        return (page or "").startswith("auth_user_") and request.user.has_perm(
            "dashboard.delete_apitoken"
        )

    @admin.action(description=gettext_lazy("Revoke the selected tokens"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, tokens: QuerySet[Model]) -> None:
        """Revoke the selected tokens permanently."""
        revoked = [
            token
            for token in ApiToken.objects.filter(pk__in=tokens).select_related("user")
            if self._revoke(request, token)
        ]
        text = ngettext("%(n)d token revoked.", "%(n)d tokens revoked.", len(revoked))
        self.message_user(request, text % {"n": len(revoked)})

    @transaction.atomic
    def _revoke(self, request: HttpRequest, token: ApiToken) -> bool:
        is_revoked = api_tokens.revoke(
            token,
            db_threads.now(),
            changed_by=signed_in_user(request),
            client_address=client_address(request),
        )
        if is_revoked:
            self.log_change(request, token, _("Revoked."))
        return is_revoked
