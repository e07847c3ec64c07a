"""The client's IP address."""

from ipaddress import IPv6Address, ip_address

from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """Return the client's IP address, or None if the request has no valid one.

    Behind a proxy the address comes from the proxy's header, so it may contain any text.
    """
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # A socket for both versions writes an IPv4 address so: else all would be of one network.
        # A scope (fe80::1%eth0) may be any text, and PostgreSQL refuses the long ones.
        address = address.ipv4_mapped or IPv6Address(int(address))
    return str(address)
