"""What to check when Northflank refuses the token (401) or a request of its role (403)."""

from django.utils import translation
from django.utils.translation import gettext_lazy

# By cause of a NorthflankError.
_HINTS = {
    "unauthorised": gettext_lazy(
        "Check NORTHFLANK_API_TOKEN: the token may be incomplete, expired or revoked. "
        "If it belongs to an organisation, check NORTHFLANK_TEAM_ID too."
    ),
    "forbidden": gettext_lazy(
        "Check the role of NORTHFLANK_API_TOKEN: it needs Project > Projects > Manage > Read "
        "and Project > Pipelines > General > Read, and General > Update to abort. "
        "If the token belongs to an organisation, check NORTHFLANK_TEAM_ID too."
    ),
}
CAUSES = tuple(_HINTS)


def describe(cause: str) -> str:
    """Return which setting to check, and for what; empty for other causes than CAUSES."""
    return str(_HINTS.get(cause, ""))


def describe_untranslated(cause: str) -> str:
    """Return the same for logs and commands, which are in English."""
    with translation.override(None):
        return describe(cause)


def log_fields(cause: str) -> dict[str, str]:
    """Return the hint as a field of a log event; none for other causes than CAUSES."""
    return {"hint": hint} if (hint := describe_untranslated(cause)) else {}
