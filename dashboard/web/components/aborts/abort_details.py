"""Details of an abort as text, shared by the run's page and the abort log."""

from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard.models import Abort
from dashboard.models.bulk_aborts import AuditedRequest, Via


def via_label(requested: AuditedRequest) -> str:
    """Return how an abort or a bulk abort was requested: on a page, by the API or by command."""
    if requested.via == Via.API:
        if not requested.token_name:
            return _("via API")
        return _("via API, token “%(token)s”") % {"token": requested.token_name}
    return _("via command line") if requested.via == Via.COMMAND else _("via dashboard")


def response_details(abort: Abort) -> list[tuple[str, str]]:
    """Return (label, text) pairs: Northflank's answer or what went wrong, and its error id.

    An answer is Northflank's only if it has an HTTP status; otherwise the text is ours.
    """
    if abort.answer_status is not None:
        status_and_text = ": ".join(
            part for part in (str(abort.answer_status), abort.answer) if part
        )
        main_detail = (_("Northflank’s response"), status_and_text)
    else:
        main_detail = (_("Error"), abort.answer)
    return [(name, text) for name, text in (main_detail, (_("Error ID"), abort.error_id)) if text]


def bulk_abort_url(abort: Abort) -> str:
    """Return the address of the abort's bulk abort; empty if it has none."""
    return reverse("bulk_abort", args=[abort.bulk_abort_id]) if abort.bulk_abort_id else ""
