"""Django's admin: manages accounts, grants and overrides; mirror and records are read-only."""

from django.conf import settings
from django.contrib import admin

from dashboard.admin import (  # noqa: F401 - they register their models
    accounts,
    api_tokens,
    mirror,
    records,
    saved_views,
    stage_timings,
)

if settings.OIDC_ISSUER:
    # Not for administrators: a row in these tables lets a provider's user sign in, unrecorded.
    for model in list(admin.site._registry):
        if model._meta.app_label in {"account", "socialaccount"}:
            admin.site.unregister(model)
