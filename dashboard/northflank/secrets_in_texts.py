"""Secrets in texts for people, such as the error of a step. Pure.

A failed request quotes the URL that it tried, a client its headers, a shell its variables.
"""

import re

# In the patterns below every repetition is possessive, is bounded, stops where the next one starts,
# or is tried once a word: texts come from outside, and time has to be linear in their length.

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

# How a secret is written. Within a JSON string its quotes have backslashes.
_QUOTED = (
    "(?:b?(?:"
    + "|".join(rf"{q}(?:[^{q}\\\n]|\\.)*+{q}|\\*+{q}[^{q}\n]*+{q}" for q in "\"'`")
    + "))"
)
_QUOTE_END = r"(?:[,}\]>:\s]|\Z)"  # what follows a closing quote
_UNQUOTED = rf"""(?:
    [^\s\\"'`,] | \\*+["'`](?!{_QUOTE_END}) | \\++(?!["'`]) | ,(?!\\*+["'`])
)"""
# A quote that nothing closing follows is part of the secret; a comma before white space goes too.
# Of a list, which `[` opens, all texts go.
_OPENING = r"(?P<list>[\[(]\s*+)?+[<{]*+"
_QUOTED_LIST = rf"{_QUOTED}(?(list)(?:\s*+,\s*+{_QUOTED})*+)"
_VALUE = rf"""(?:
    {_QUOTED_LIST} (?: ,(?=\s) | (?=[,;\}}\])>&]) | {_UNQUOTED}*+ )
    | {_UNQUOTED}++
)"""
# What is no secret: an empty value, and the first words of a message after a colon.
_EMPTY = r"""(?:null|none|nil|undefined|true|false)(?![^\s,;&}\])"'`\\])"""
_PROSE = rf"""(?:
    (?:access|permission)\s+denied | must | should | cannot | is | was | has | not? | missing
    | required | invalid | incorrect | wrong | expired | empty | too | failed | rejected | denied
    | forbidden | unauthorized | unset
) [.,;:!)]*+ (?:\s|\Z|\\*+["'`]{_QUOTE_END})"""
_EQUALS = rf"""\\*+["'`]?\s*+ (?: =>?\s*+ | :\s*+(?!{_PROSE}) ) (?!{_EMPTY})"""
# The scheme before a secret, perhaps behind a quote that nothing closes.
_SCHEME = rf"""(?:
    (?: (?!{_QUOTED}) b?\\*+["'`] )? (?:basic|bearer|digest|token)\s++
)?+"""


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.VERBOSE)


# Of each pattern the group `kept` stays, and `…` replaces the rest.
# Cookies have no end but the line's: nobody knows which of them is the secret one.
_COOKIES = _compile(
    rf"(?P<kept>cookie{_EQUALS}{_OPENING}) (?: {_QUOTED_LIST}(?={_QUOTE_END}) | [^\n]++ )"
)
# Any word may name the scheme. Parameters, of which one is the secret, end with the line.
_AUTHORIZATION = _compile(
    rf"""(?P<kept>authorization{_EQUALS}{_OPENING}) (?:
        {_QUOTED_LIST}(?={_QUOTE_END})
        | (?:b(?=\\*+["'`]))?+ [^\w\s]*+
          (?: (?:digest|oauth|hawk|mac|aws4[\w-]*+)[ \t]++[^\n]++
            | (?:[a-z][\w.-]*+[ \t]++(?=\S))?+ {_VALUE} )
    )"""
)
# By name: `password=pw`, `"token": "pw"`. White space after a colon is common in ordinary messages
# ("invalid token: expired"), so it counts only after some names, or before a quote.
_NAMED = _compile(
    rf"""(?=[-acpst])  # the names' first letters: halves the time
    (?P<kept> (?:
        (?:-(?:key|token|secret)|passw(?:or)?d|passphrase|\bpwd) {_EQUALS}
        | (?:passw(?:or)?d|passphrase|pwd|secret|token|credential|signature|\bsig
            |(?:api|access|account|private)[_-]?key)
          [\w.-]{{0,30}}
          (?: \\*+["'`]?\s*+=>?\s*+ | \\*+["'`]\s*+:\s*+ | :(?=\S) | :\s++(?=b?\\*+["'`]) )
          (?!{_EMPTY})
    ) {_OPENING} ) {_SCHEME} {_VALUE}"""
)
# A number after one of these names is no secret: `max_tokens=4096`.
_COUNT = _compile(
    r"""[\w.-]{0,40}? (?:tokens|count|limit|length|size|version|ttl) [^\w.-]*+ \d[\d.]*+ \W*+"""
)
_BEARER = _compile(
    rf"""(?P<kept>bearer\s++)
    (?!(?:tokens?|auth(?:entication|orization)?)(?![\w|-]|\.\w)|(?:realm|error|scope)=)
    (?:{_QUOTED}(?={_QUOTE_END})|{_UNQUOTED}++)"""
)
# user:password@, but neither a time nor a package with its version or digest.
_USER_PASSWORD = _compile(
    r"""(?<!\S) (?!(?:\d{4}-\d\d-\d\dT)?\d\d?:\d\d(?!\w)) (?P<kept>[^\s:@]*+:) \S+
    (?=@ (?!sha\d++:)
      (?! [v^~<>=]*+\d++(?:\.\d++){0,2}+(?:[-+][\w.+-]*+)? [.,;:)\]}>"'`]*+ (?:\s|\Z) )
    )"""
)


def redact_secrets(text: str) -> str:
    """Return the text with URLs reduced to scheme and host, and without passwords and tokens.

    A secret is recognised by what is around it: one that stands alone remains.
    """
    text = _URLS.sub(_redact_urls, text)
    for pattern in (_COOKIES, _AUTHORIZATION, _NAMED, _BEARER, _USER_PASSWORD):
        text = pattern.sub(_redact_secret, text)
    return text


def _redact_urls(urls: re.Match[str]) -> str:
    text = urls[0]
    # No quote before an `@` ends a URL: it may be part of a password.
    after_at = max(text.rfind("@") + 1, text.rfind("%40") + 3)
    result: list[str] = []
    position = 0
    while start := _URL_START.search(text, position):
        quote = _URL_QUOTE.search(text, max(start.end(), after_at))
        end = quote.start() if quote and quote["closing"] else len(text)
        result += text[position : start.end()], _redact_url(text[start.end() : end])
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


def _redact_secret(secret: re.Match[str]) -> str:
    return secret[0] if _COUNT.fullmatch(secret[0]) else f"{secret['kept']}…"
