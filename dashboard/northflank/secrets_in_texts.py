"""Secrets in texts for people, such as the error of a step or the lines of a log. Pure.

A failed request quotes the URL that it tried, a client its headers, a shell its variables.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dashboard.northflank.secret_rules import ERROR_RULES, KEY_BEGIN, KEY_END, LOG_RULES
from dashboard.northflank.secret_values import SecretValues

REDACTED = "[redacted]"  # in place of a secret in a line of a log
MAX_KEY_LINES = 300  # of a private key; the longest in use has a third

# A URL may carry a secret before the host (credentials), in its path (chat webhooks) or behind it.
# It may be part of JSON, with `\/`, or of another URL.
_URL_START = re.compile(r"(?::|%3A)(?:\\*/|%2F){2}", re.IGNORECASE)
_URLS = re.compile(rf"{_URL_START.pattern}\S*", re.IGNORECASE)  # all that no white space parts
# An unquoted password may contain anything but white space, so a URL ends there, or at its first
# quote if that looks like a closing one.
_URL_QUOTE = re.compile(r"""["'`](?P<closing>[,}\]>:])?""")
_AUTHORITY_END = re.compile(r"([^\w.:@\[\]-]|$)")
_HOST = re.compile(r"((?:\[[\w:.]*\]|[\w.-]*)(?::\d{1,5}(?!\w))?)")
_AT = re.compile("@|%40")
_CLOSING = "\"'`<>),;:\\"  # of the text around a URL

_KEY_BEGIN, _KEY_END = re.compile(KEY_BEGIN), re.compile(KEY_END)
_KEY_BODY = re.compile(r"[A-Za-z0-9+/]{60}|(?:^|\s)[A-Za-z0-9+/]{16,}={0,2}$|^\s*$|^[A-Z][\w-]*: ")
_KEY_TAIL = re.compile(r"(?:^|[\d:Z\]]\s+)=?[A-Za-z0-9+/]+={0,2}$")  # perhaps after a time
# A value may be on the line after its name: between both is a character that no line has.
_LINE_END = "\x1e"
_VALUE_LINE = re.compile(r"\s*+[\"']?value[\"']?\s*+:", re.IGNORECASE)
_INVISIBLE = re.compile("[\u00ad\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_MARK = "\ufdd0"  # for a secret while a line is redacted: no character, and never part of a text
_MARKS = re.compile(f"{_MARK}+")


def redact_secrets(text: str) -> str:
    """Return the text with URLs reduced to scheme and host, and without passwords and tokens.

    A secret is recognised by what is around it, or by the prefix of its provider: others remain.
    """
    text = _URLS.sub(partial(_redact_urls, redact_url=_redact_url), text)
    return _apply(ERROR_RULES, text, "…")


def redact_lines(lines: Sequence[str], values: SecretValues) -> Iterator[tuple[str, bool]]:
    """Yield each line of a log as by `redact_line`; of a private key over several lines nothing."""
    present = values.present_in(_INVISIBLE.sub("", "\n".join(lines)))
    of_keys = _private_key_lines(lines)
    for index, line in enumerate(lines):
        if index in of_keys:
            yield REDACTED, True
        elif index and (_VALUE_LINE.match(line) or lines[index - 1].endswith(("|", ">", "|-"))):
            joined, _is_redacted = redact_line(f"{lines[index - 1]}{_LINE_END}{line}", present)
            text = joined.rpartition(_LINE_END)[2]
            yield text, text != line
        else:
            yield redact_line(line, present)


def redact_line(text: str, values: SecretValues) -> tuple[str, bool]:
    """Return a line of a log with REDACTED in place of each secret, and whether there was one.

    Unlike `redact_secrets` it leaves URLs, but for their passwords and webhooks, and removes the
    `values`, even encoded or with invisible characters in them.
    """
    redacted = values.replace_in(_INVISIBLE.sub("", text).replace(_MARK, "\ufffd"), _MARK)
    redacted = _URLS.sub(partial(_redact_urls, redact_url=_redact_login), redacted)
    redacted = _apply(LOG_RULES, redacted, _MARK)
    return (_MARKS.sub(REDACTED, redacted), True) if _MARK in redacted else (text, False)


def _apply(rules: list[tuple[list[str], re.Pattern[str]]], text: str, mark: str) -> str:
    contains = text.lower().__contains__
    for keywords, pattern in rules:
        if any(map(contains, keywords)):
            text = pattern.sub(lambda found: found["kept"] + mark, text)
    return text


def _private_key_lines(lines: Sequence[str]) -> set[int]:
    """Return the indexes of lines after the first one of a private key.

    Its begin or end may be missing, or not written yet: then what looks like a part of it counts.
    """
    found: set[int] = set()
    begin = None
    for index, line in enumerate(lines):
        begins, ends = _KEY_BEGIN.search(line), _KEY_END.search(line)
        if ends and not begins:
            if begin is None or index - begin > MAX_KEY_LINES:
                begin = max(index - 2, -1)  # the last line before the end may be short
                while begin >= 0 and _KEY_BODY.search(lines[begin]):
                    begin -= 1
            found.update(range(begin + 1, index + 1))
        elif (index - 1 == begin or (begin is not None and index - 1 in found)) and (
            _KEY_BODY.search(line) or (index + 1 == len(lines) and _KEY_TAIL.search(line))
        ):
            found.add(index)
        if begins or ends:
            begin = None if ends else index
    return found


def _redact_urls(urls: re.Match[str], redact_url: Callable[[str], str]) -> str:
    text = urls[0]
    # No quote before an `@` ends a URL: it may be part of a password.
    after_at = max(text.rfind("@") + 1, text.rfind("%40") + 3)
    result: list[str] = []
    position = 0
    while start := _URL_START.search(text, position):
        quote = _URL_QUOTE.search(text, max(start.end(), after_at))
        end = quote.start() if quote and quote["closing"] else len(text)
        result += text[position : start.end()], redact_url(text[start.end() : end])
        position = end
    return "".join(result) + text[position:]


def _redact_url(url: str) -> str:
    """Return the URL's host and port, and what closes the text around it."""
    address = url.rstrip(_CLOSING)
    closing = url[len(address) :]
    authority, other, rest = _AUTHORITY_END.split(address, maxsplit=1)
    if _AT.search(other + rest):
        # What seems to be the host may be a user name, or the start of a password.
        return f"…{closing}"
    _, host, odd = _HOST.split(authority.rpartition("@")[2], maxsplit=1)
    if not host:
        return f"…{closing}"
    return f"{host}/…{closing}" if other or odd else f"{host}{closing}"


def _redact_login(url: str) -> str:
    """Return the URL without user name and password."""
    authority, other, rest = _AUTHORITY_END.split(url, maxsplit=1)
    # A password may contain what ends a host; a port looks like one. `/@` is common in paths.
    _host, odd = _HOST.split(authority, maxsplit=1)[1:]
    if "@" not in authority and (not (odd or other == "%") or not _AT.search(other + rest)):
        return url
    return f"{_MARK}@{_AT.split(url)[-1]}"
