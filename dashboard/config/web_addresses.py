"""Which texts of settings are web addresses, and where they lead."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_web_address(text: str) -> bool:
    """Return whether a text is an http or https address with a host, without a user."""
    try:
        parts = urlsplit(text)
        has_valid_port = parts.port != 0  # raises for one that is no number up to 65535
    except ValueError:
        return False
    is_web = parts.scheme in {"http", "https"} and bool(parts.hostname)
    return is_web and has_valid_port and "@" not in parts.netloc and not re.search(r"\s", text)


def quote_address(text: str) -> str:
    """Return a text that should be a web address, in quotes, without a user and password in it."""
    # Up to the last "@": a password may contain a "/" that is not encoded.
    return repr(re.sub(r"(\w+://)?.*@", r"\1…@", text, count=1, flags=re.DOTALL))


def is_encrypted_or_local(address: str) -> bool:
    """Return whether nobody on the way can read what is sent to a web address."""
    try:
        parts = urlsplit(address)
        if parts.scheme == "https" or parts.hostname == "localhost":
            return True
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
