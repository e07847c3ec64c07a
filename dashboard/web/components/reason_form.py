"""The reason of an abort as a form asks for it: a quick pick, a text, or both."""

from dataclasses import dataclass

from django.http import HttpRequest
from django.utils.translation import gettext as _

from dashboard.aborts import REASON_LENGTH, Press
from dashboard.web.http.client_address import client_address


@dataclass(frozen=True, slots=True)
class ReasonField:
    """What the form shows, and what was filled in when it comes back with an error."""

    required: bool
    pick: str = ""
    text: str = ""
    error: str = ""
    length: int = REASON_LENGTH

    @property
    def picks(self) -> list[tuple[str, bool]]:
        """The quick picks, and which one is chosen."""
        known = [
            _("Stuck"),
            _("Wrong version"),
            _("Started by mistake"),
            _("Blocks another release"),
            _("Incident"),
        ]
        return [(pick, pick == self.pick) for pick in known]

    @property
    def whole(self) -> str:
        """The reason as it is kept."""
        return ": ".join(part for part in (self.pick, self.text.strip()) if part)


def read(request: HttpRequest, *, required: bool, error: str = "") -> ReasonField:
    """Read the reason that was filled in."""
    pick, text = request.POST.get("pick", ""), request.POST.get("reason", "")
    return ReasonField(required, pick.strip(), text, error)


def press(request: HttpRequest, reason: ReasonField) -> Press:
    """Return the press that the form asks for."""
    return Press(
        user=request.user,  # type: ignore[arg-type]  # signed in: see sign_in.py
        reason=reason.whole,
        client_address=client_address(request),
    )
