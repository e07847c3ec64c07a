"""The facts of an abort in words: the same on its run's page and in the audit."""

from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard.models import Abort
from dashboard.models.bulk_aborts import AskedFor, Via


def came_by(asked: AskedFor) -> str:
    """Say by which way an abort, or a list of them, came in."""
    if asked.via == Via.API:
        if not asked.token_name:
            return _("by the API")
        return _("by the API, token “%(token)s”") % {"token": asked.token_name}
    return _("by command") if asked.via == Via.COMMAND else _("on a page")


def answer(abort: Abort) -> list[tuple[str, str]]:
    """Return what Northflank answered, or why it did not, and the id of its error, by their names.

    Only what came with a status is Northflank's; all else is our own account of what went wrong.
    """
    if abort.answer_status is not None:
        said = ": ".join(part for part in (str(abort.answer_status), abort.answer) if part)
        told = (_("Northflank’s answer"), said)
    else:
        told = (_("What went wrong"), abort.answer)
    return [(name, text) for name, text in (told, (_("Its error’s id"), abort.error_id)) if text]


def batch_url(abort: Abort) -> str:
    """Return the address of the list that an abort belongs to; empty: of none."""
    return reverse("batch", args=[abort.batch_id]) if abort.batch_id else ""
