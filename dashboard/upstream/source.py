"""Which Northflank the settings are for; a database mirrors one."""

from django.conf import settings


def configured_source() -> str:
    """Return the API's address and the team; "sandbox" for the sandbox."""
    if settings.SANDBOX:
        return "sandbox"
    return f"{settings.NORTHFLANK_API_BASE_URL} {settings.NORTHFLANK_TEAM_ID}".strip()
