"""The access log: who signed in and out, used tokens, opened logs, and whose rights changed."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy


class AccessKind(models.TextChoices):
    """What happened."""

    SIGNED_IN = "signed_in", gettext_lazy("Signed in")
    BREAK_GLASS = "break_glass", gettext_lazy("Break-glass sign-in")
    SIGN_IN_FAILED = "sign_in_failed", gettext_lazy("Sign-in failed")
    SIGNED_OUT = "signed_out", gettext_lazy("Signed out")
    SESSION_ENDED = "session_ended", gettext_lazy("Session ended")
    PASSWORD_CHANGED = "password_changed", gettext_lazy("Password changed")
    PASSWORD_REFUSED = "password_refused", gettext_lazy("Password change refused")
    TOKEN_CREATED = "token_created", gettext_lazy("Token created")
    TOKEN_FIRST_USED = "token_first_used", gettext_lazy("Token first used")
    TOKEN_REFUSED = "token_refused", gettext_lazy("Token refused")
    TOKEN_REVOKED = "token_revoked", gettext_lazy("Token revoked")
    RIGHTS_CHANGED = "rights_changed", gettext_lazy("Rights changed")
    LOGS_OPENED = "logs_opened", gettext_lazy("Logs opened")


class AccessEvent(models.Model):
    """One line of the access log; append-only (models/append_only.py). It contains no secret."""

    occurred_at = models.DateTimeField()
    kind = models.CharField(max_length=20, choices=AccessKind)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="access_events"
    )
    # Account concerned, kept after its deletion; empty: none exists.
    username = models.TextField(blank=True)
    # Who made the change, for changes of tokens and rights.
    changed_by = models.TextField(blank=True)
    client_address = models.GenericIPAddressField(null=True)
    token_name = models.TextField(blank=True)  # API token concerned, if any.
    detail = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar = ["-pk"]
        indexes: ClassVar = [
            models.Index(fields=["kind", "id"], name="access_event_kind_idx"),
            models.Index(fields=["username", "id"], name="access_event_username_idx"),
            models.Index(fields=["username", "kind", "id"], name="access_event_both_idx"),
        ]
