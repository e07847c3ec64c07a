"""The facts of an abort in words: the same on its run's page and in the audit."""

from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard.models import Abort
from dashboard.models.bulk_aborts import AuditedRequest, Via


def via_label(requested: AuditedRequest) -> str:
    """Say by which way an abort, or a list of them, came in."""
    if requested.via == Via.API:
        if not requested.token_name:
            return _("by the API")
        return _("by the API, token “%(token)s”") % {"token": requested.token_name}
    return _("by command") if requested.via == Via.COMMAND else _("on a page")


def response_details(abort: Abort) -> list[tuple[str, str]]:
    """Return what Northflank answered, or why it did not, and the id of its error, by their names.

    Only what came with a status is Northflank's; all else is our own account of what went wrong.
    """
    if abort.answer_status is not None:
        status_and_text = ": ".join(
            part for part in (str(abort.answer_status), abort.answer) if part
        )
        main_detail = (_("Northflank’s answer"), status_and_text)
    else:
        main_detail = (_("What went wrong"), abort.answer)
    return [
        (name, text) for name, text in (main_detail, (_("Its error’s id"), abort.error_id)) if text
    ]


def bulk_abort_url(abort: Abort) -> str:
    """Return the address of the list that an abort belongs to; empty: of none."""
    return reverse("bulk_abort", args=[abort.bulk_abort_id]) if abort.bulk_abort_id else ""
