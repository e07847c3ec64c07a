"""Accounts that the proxy in front of the dashboard signs in (docs/run/sign-in.md)."""

from django.conf import settings
from django.db import models


class ProxyAccount(models.Model):
    """An account that the proxy's header signs in: added by it, or handed over under /people/."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="proxy_account"
    )
