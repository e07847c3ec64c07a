"""What to check when Northflank refuses the token (401) or a request of its role (403)."""

from django.utils.translation import gettext as _

# By cause of a NorthflankError.
_HINTS = {
    "unauthorised": _(
        "Check NORTHFLANK_API_TOKEN: the token may be incomplete, expired or revoked. "
        "If it belongs to an organisation, check NORTHFLANK_TEAM_ID too."
    ),
    "forbidden": _(
        "Check the role of NORTHFLANK_API_TOKEN: it needs Project > Projects > Manage > Read "
        "and Project > Pipelines > General > Read, and General > Update to abort. "
        "If the token belongs to an organisation, check NORTHFLANK_TEAM_ID too."
    ),
}
CAUSES = tuple(_HINTS)


def describe(cause: str) -> str:
    """Return which setting to check, and for what; empty for other causes than CAUSES."""
    return _HINTS.get(cause, "")


def log_fields(cause: str) -> dict[str, str]:
    """Return the hint as a field of a log event; none for other causes than CAUSES."""
    return {"hint": hint} if (hint := describe(cause)) else {}
