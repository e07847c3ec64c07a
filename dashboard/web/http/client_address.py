"""The client's IP address, and that of the peer."""

from ipaddress import IPv6Address, ip_address

from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """Return the client's IP address, or None if it is unknown.

    Behind a proxy it comes from the proxy's header, which may contain any text, or none: without an
    address in it, it is that of the proxy.
    """
    return _parse(request.META.get("REMOTE_ADDR")) or _parse(peer_address(request))


def peer_address(request: HttpRequest) -> str | None:
    """Return the address that has connected, whatever a header says of the client."""
    peer: str | None = getattr(request, "scope", {}).get("peer")  # server/http_protocol.py
    return peer


def _parse(text: str | None) -> str | None:
    try:
        address = ip_address(text or "")
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # A socket for both versions writes an IPv4 address so: else all would be of one network.
        # A scope (fe80::1%eth0) may be any text, and PostgreSQL refuses the long ones.
        address = address.ipv4_mapped or IPv6Address(int(address))
    return str(address)
