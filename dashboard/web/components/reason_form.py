"""The reason of an abort as a form asks for it: a quick pick, a text, or both."""

from dataclasses import dataclass

from django.http import HttpRequest
from django.utils.translation import gettext as _

from dashboard.aborts import MAX_REASON_LENGTH, AbortRequest
from dashboard.web.http.client_address import client_address


@dataclass(frozen=True, slots=True)
class ReasonField:
    """What the form shows, and what was filled in when it comes back with an error."""

    required: bool
    pick: str = ""
    text: str = ""
    error: str = ""
    max_length: int = MAX_REASON_LENGTH

    @property
    def picks(self) -> list[tuple[str, bool]]:
        """The quick picks, and which one is chosen."""
        labels = [
            _("Stuck"),
            _("Wrong version"),
            _("Started by mistake"),
            _("Blocks another release"),
            _("Incident"),
        ]
        return [(pick, pick == self.pick) for pick in labels]

    @property
    def full_text(self) -> str:
        """The reason as it is kept."""
        return ": ".join(part for part in (self.pick, self.text.strip()) if part)


def parse(request: HttpRequest, *, required: bool, error: str = "") -> ReasonField:
    """Read the reason that was filled in."""
    pick, text = request.POST.get("pick", ""), request.POST.get("reason", "")
    return ReasonField(required, pick.strip(), text, error)


def abort_request(request: HttpRequest, reason: ReasonField) -> AbortRequest:
    """Return the press that the form asks for."""
    return AbortRequest(
        user=request.user,  # type: ignore[arg-type]  # signed in: see sign_in.py
        reason=reason.full_text,
        client_address=client_address(request),
    )
