"""The reason field of abort forms: a quick pick, a text, or both."""

from dataclasses import dataclass

from django.http import HttpRequest

from dashboard.aborts.request import MAX_REASON_LENGTH, AbortRequest
from dashboard.accounts.permissions import Permissions
from dashboard.runs import abort_reasons
from dashboard.web.http.client_address import client_address


@dataclass(frozen=True, slots=True)
class ReasonField:
    """The reason field, with the submitted values and the error if the form is shown again."""

    required: bool
    pick: str = ""
    text: str = ""
    error: str = ""
    max_length: int = MAX_REASON_LENGTH

    @property
    def picks(self) -> list[tuple[str, bool]]:
        """(label, is selected) of each quick pick."""
        labels = map(str, abort_reasons.REASONS.values())
        return [(pick, pick == self.pick) for pick in labels]

    @property
    def full_text(self) -> str:
        """The reason to record: quick pick and text joined."""
        return ": ".join(part for part in (self.pick, self.text.strip()) if part)


def parse(request: HttpRequest, *, required: bool) -> ReasonField:
    """Return the reason field as submitted."""
    pick, text = request.POST.get("pick", ""), request.POST.get("reason", "")
    return ReasonField(required, pick.strip(), text)


def abort_request(
    request: HttpRequest, reason: ReasonField, user_permissions: Permissions | None = None
) -> AbortRequest:
    """Return the abort request of the form's user, reason and client address.

    `user_permissions` are the user's, if this request has read them already.
    """
    return AbortRequest(
        user=request.user,  # type: ignore[arg-type]  # signed in: see sign_in.py
        reason=reason.full_text,
        client_address=client_address(request),
        permissions=user_permissions,
    )
