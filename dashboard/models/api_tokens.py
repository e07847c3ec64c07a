"""Tokens for automation: each acts for an account, within a scope, and is kept as a digest only."""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Case, F, Q, When
from django.utils.translation import gettext_lazy

PREFIX = "rfd_"  # so that a leaked one is recognised for what it is
WINDOW = timedelta(minutes=1)  # in which a token's requests are counted


class Scope(models.TextChoices):
    READ = "read"
    ABORT = "abort"  # and read


class Standing(models.TextChoices):
    """Whether a token opens anything and, if not, why."""

    GOOD = "good"
    REVOKED = "revoked"
    EXPIRED = "expired"
    INACTIVE = "inactive"  # its account is switched off


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def known_by(self, secret: str) -> "ApiToken | None":
        """Return the token that has this secret, good or not, with its account."""
        digest = ApiToken.digest_of(secret)
        return self.select_related("user").filter(digest=digest).first()


class ApiToken(models.Model):
    """What a machine shows to be let in, as the account it belongs to."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    name = models.CharField(
        max_length=100, help_text=gettext_lazy("What uses it: “PagerDuty runbook”.")
    )
    scope = models.CharField(max_length=10, choices=Scope, default=Scope.READ)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(
        max_length=12, editable=False, help_text=gettext_lazy("How the token begins.")
    )
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(
        null=True, blank=True, help_text=gettext_lazy("Empty: never.")
    )
    revoked_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(
        null=True, blank=True, help_text=gettext_lazy("When it was last used.")
    )
    window_at = models.DateTimeField(
        null=True, help_text=gettext_lazy("Since when its requests are counted.")
    )
    window_used = models.PositiveIntegerField(default=0)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name", "pk"]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"

    @staticmethod
    def digest_of(secret: str) -> str:
        """Return what is kept of a token. It is random, so a plain hash of it is enough."""
        return hashlib.sha256(secret.encode()).hexdigest()

    @classmethod
    def make(
        cls,
        user: "settings.AUTH_USER_MODEL",  # type: ignore[name-defined]
        name: str,
        scope: Scope,
        at: datetime,
        expires_at: datetime | None = None,
    ) -> tuple["ApiToken", str]:
        """Make a token and return it with its secret, which cannot be told again."""
        secret = PREFIX + secrets.token_urlsafe(32)
        made = cls.objects.create(
            user=user,
            name=name,
            scope=scope,
            digest=cls.digest_of(secret),
            hint=secret[: len(PREFIX) + 4],
            created_at=at,
            expires_at=expires_at,
        )
        return made, secret

    def standing(self, at: datetime) -> Standing:
        """Say whether the token is good at that time."""
        if self.revoked_at is not None:
            return Standing.REVOKED
        if self.expires_at is not None and self.expires_at <= at:
            return Standing.EXPIRED
        return Standing.GOOD if self.user.is_active else Standing.INACTIVE

    def take_turn(self, at: datetime) -> timedelta:
        """Count a request; return how long to wait where this minute's are used up, else nothing.

        One conditional update, so that processes that ask at the same time lose no count.
        """
        over = Q(window_at=None) | Q(window_at__lte=at - WINDOW)
        may = over | Q(window_used__lt=settings.API_REQUESTS_PER_MINUTE)
        counted = ApiToken.objects.filter(may, pk=self.pk).update(
            window_used=Case(When(over, then=1), default=F("window_used") + 1),
            used_at=Case(When(over, then=at), default=F("used_at")),
            window_at=Case(When(over, then=at), default=F("window_at")),
        )
        if counted:
            return timedelta()
        begun = ApiToken.objects.values_list("window_at", flat=True).filter(pk=self.pk).first()
        return max((begun or at) + WINDOW - at, timedelta(seconds=1))
