"""Methods of requests."""

# A request by one of these changes nothing that anybody asked for (RFC 9110); Django checks no
# token against forged forms for them.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
