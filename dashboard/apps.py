"""The Django application; `ready` registers system checks and migration signals."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "dashboard"
    verbose_name = "Release flows"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from dashboard.accounts import changes, permissions
        from dashboard.config import checks
        from dashboard.db import postgresql
        from dashboard.models import append_only
        from dashboard.notices import channels
        from dashboard.web.http.authentication import session_events

        checks.register_all()
        channels.register_check()
        postgresql.register(self)
        append_only.register(self)
        permissions.register(self)
        changes.register(self)
        session_events.register(self)
