"""API tokens for automation: each acts for an account within a scope; only a digest is stored."""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Case, F, Q, When

PREFIX = "rfd_"  # makes a leaked token recognisable
RATE_WINDOW = timedelta(minutes=1)  # for counting a token's requests
REQUESTS_PER_WINDOW = 60  # by each token


class Scope(models.TextChoices):
    """What a token may be used for; each includes those before it."""

    READ = "read"
    LOGS = "logs"  # see the logs of what runs have started
    ABORT = "abort"


class TokenStatus(models.TextChoices):
    """Whether a token is valid and, if not, why."""

    VALID = "valid"
    REVOKED = "revoked"
    EXPIRED = "expired"
    INACTIVE = "inactive"  # its account is deactivated


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def find_by_secret(self, secret: str) -> "ApiToken | None":
        """Return the token with this secret, valid or not, with its account; None if unknown."""
        digest = ApiToken.hash_secret(secret)
        return self.select_related("user").filter(digest=digest).first()


class ApiToken(models.Model):
    """A credential for the JSON API that acts as the account it belongs to."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)  # What the token is for, such as “PagerDuty runbook”.
    scope = models.CharField(max_length=10, choices=Scope, default=Scope.READ)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    prefix = models.CharField(max_length=12, editable=False)  # First characters of the secret.
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)  # Empty: never expires.
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)  # When the token was last used.
    window_started_at = models.DateTimeField(null=True)  # Start of the current rate limit window.
    window_requests = models.PositiveIntegerField(default=0)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name", "pk"]

    @staticmethod
    def hash_secret(secret: str) -> str:
        """Return the digest to store. Secrets are random, so a plain SHA-256 is enough."""
        return hashlib.sha256(secret.encode()).hexdigest()

    @classmethod
    def create_token(
        cls,
        user: "settings.AUTH_USER_MODEL",  # type: ignore[name-defined]
        name: str,
        scope: Scope,
        at: datetime,
        expires_at: datetime | None = None,
    ) -> tuple["ApiToken", str]:
        """Create a token and return it with its secret, which cannot be recovered later."""
        secret = PREFIX + secrets.token_urlsafe(32)
        token = cls.objects.create(
            user=user,
            name=name,
            scope=scope,
            digest=cls.hash_secret(secret),
            prefix=secret[: len(PREFIX) + 4],
            created_at=at,
            expires_at=expires_at,
        )
        return token, secret

    def status(self, at: datetime) -> TokenStatus:
        """Return whether the token is valid at a time and, if not, why."""
        if self.revoked_at is not None:
            return TokenStatus.REVOKED
        if self.expires_at is not None and self.expires_at <= at:
            return TokenStatus.EXPIRED
        return TokenStatus.VALID if self.user.is_active else TokenStatus.INACTIVE

    def mark_first_use(self, at: datetime) -> bool:
        """Return whether the token is used for the first time, by one of concurrent requests."""
        unused = ApiToken.objects.filter(pk=self.pk, last_used_at=None)
        return self.last_used_at is None and bool(unused.update(last_used_at=at))

    def throttle(self, at: datetime) -> timedelta:
        """Count a request; return how long to wait if the rate limit is reached, else zero.

        One conditional update, so that concurrent processes lose no count.
        """
        is_expired = Q(window_started_at=None) | Q(window_started_at__lte=at - RATE_WINDOW)
        is_allowed = is_expired | Q(window_requests__lt=REQUESTS_PER_WINDOW)
        counted = ApiToken.objects.filter(is_allowed, pk=self.pk).update(
            window_requests=Case(When(is_expired, then=1), default=F("window_requests") + 1),
            last_used_at=Case(When(is_expired, then=at), default=F("last_used_at")),
            window_started_at=Case(When(is_expired, then=at), default=F("window_started_at")),
        )
        if counted:
            return timedelta()
        started_at = (
            ApiToken.objects.values_list("window_started_at", flat=True).filter(pk=self.pk).first()
        )
        return max((started_at or at) + RATE_WINDOW - at, timedelta(seconds=1))
