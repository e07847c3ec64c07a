"""Why a message could not be sent."""


class SendError(Exception):
    """A message did not arrive, or perhaps not; the text states why, without any address."""
