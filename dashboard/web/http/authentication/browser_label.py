"""A short label of a browser from its User-Agent, which may be any text."""

from django.http import HttpRequest

from dashboard.models.accounts.sessions import LABEL_LENGTH

# The first that the header contains: Edge also names Chrome, and everybody Safari.
_BROWSERS = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "CriOS/": "Chrome",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
_SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "Macintosh": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}


def describe(request: HttpRequest) -> str:
    """Return a label such as “Firefox, Windows”; else the start of the header; empty without it."""
    user_agent = request.headers.get("User-Agent", "")
    tables = (_BROWSERS, _SYSTEMS)
    if label := ", ".join(filter(None, [_find(user_agent, names) for names in tables])):
        return label
    # Without control and formatting characters, such as those that change the direction.
    printable = "".join(c if c.isprintable() else " " for c in user_agent[: 10 * LABEL_LENGTH])
    return " ".join(printable.split())[:LABEL_LENGTH]


def _find(user_agent: str, names: dict[str, str]) -> str:
    return next((name for text, name in names.items() if text in user_agent), "")
