"""An abort with its details and timeline, for the run's page and the abort log."""

from dataclasses import dataclass
from functools import cached_property

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.aborts import timeline as abort_timeline
from dashboard.aborts.timeline import TimelineEntry
from dashboard.models import Abort
from dashboard.models.bulk_aborts import Via
from dashboard.texts.rich_text import ExternalText, Message, MessageTable
from dashboard.web.components.runs import abort_line
from dashboard.web.components.runs.abort_line import AbortLine

_text = MessageTable(
    {
        "job_run": gettext_lazy("Job run %(name)s"),
        "job_run_of": gettext_lazy("Job run of %(name)s"),
        "build": gettext_lazy("Build %(name)s"),
        "build_of": gettext_lazy("Build of %(name)s"),
    }
)


@dataclass(frozen=True)
class AbortEntry:
    """An abort that was loaded with its run and its events."""

    abort: Abort

    @cached_property
    def line(self) -> AbortLine:
        """The abort in one line."""
        return abort_line.of_abort(self.abort.run, self.abort)

    @property
    def work_label(self) -> Message | None:
        """What is aborted, if it is not the run itself."""
        work = self.abort.work
        return work_label(work.kind, work.name) if work is not None else None

    @property
    def via_label(self) -> str:
        """How it was requested: on a page, by the API or by command."""
        if self.abort.via == Via.API:
            if not self.abort.token_name:
                return _("via API")
            return _("via API, token “%(token)s”") % {"token": self.abort.token_name}
        return _("via command line") if self.abort.via == Via.COMMAND else _("via dashboard")

    @property
    def timeline(self) -> list[TimelineEntry]:
        """Its events as text."""
        return abort_timeline.entries(self.abort, self.abort.events.all())

    @property
    def response_details(self) -> list[tuple[str, str]]:
        """(label, text) pairs: Northflank's response or what went wrong, and its error id.

        A response is Northflank's only if it has an HTTP status; otherwise the text is ours.
        """
        abort = self.abort
        label, parts = _("Error"), [abort.response]
        if abort.response_status is not None:
            label, parts = _("Northflank’s response"), [str(abort.response_status), abort.response]
        pairs = (label, ": ".join(filter(None, parts))), (_("Error ID"), abort.error_id)
        return [(name, text) for name, text in pairs if text]

    @property
    def bulk_abort_url(self) -> str:
        """The address of the abort's bulk abort; empty if it has none."""
        key = self.abort.bulk_abort_id
        return reverse("bulk_abort", args=[key]) if key else ""


def work_label(kind: str, name: str, owner: str = "") -> Message:
    """Return what a job run or build is called: without a name, by its job or service."""
    return _text(kind if name else f"{kind}_of", name=ExternalText(name or owner))
