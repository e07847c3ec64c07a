"""What to check when Northflank refuses the token (401) or a request of its role (403)."""

from django.utils import translation
from django.utils.translation import gettext as _

# Causes of NorthflankError for which there is a hint.
CAUSES = ("unauthorised", "forbidden")


def describe(cause: str) -> str:
    """Return which setting to check, and for what; empty for other causes than CAUSES."""
    if cause == "unauthorised":
        return _(
            "Check NORTHFLANK_API_TOKEN: the token may be incomplete, expired or revoked. "
            "If it belongs to an organisation, check NORTHFLANK_TEAM_ID too."
        )
    if cause == "forbidden":
        return _(
            "Check the role of NORTHFLANK_API_TOKEN: it needs Project > Projects > Manage > Read "
            "and Project > Pipelines > General > Read, and General > Update to abort. "
            "If the token belongs to an organisation, check NORTHFLANK_TEAM_ID too."
        )
    return ""


def describe_untranslated(cause: str) -> str:
    """Return the same for logs and commands, which are in English."""
    with translation.override(None):
        return describe(cause)


def log_fields(cause: str) -> dict[str, str]:
    """Return the hint as a field of a log event; none for other causes than CAUSES."""
    return {"hint": hint} if (hint := describe_untranslated(cause)) else {}
