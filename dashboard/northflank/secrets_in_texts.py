"""Secrets in texts for people, such as the error of a step or the lines of a log. Pure.

A failed request quotes the URL that it tried, a client its headers, a shell its variables.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dashboard.northflank.secret_values import SecretValues

REDACTED = "[redacted]"  # in place of a secret in a line of a log
MAX_KEY_LINES = 300  # of a private key; the longest in use has a third

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
    rf"""(?=[-_acpst])  # the names' first letters: halves the time
    (?P<kept> (?:
        (?:-key|[_-](?:token|secret)|(?-i:TOKEN|SECRET)|(?:api|access|private)_?key
            |passw(?:or)?d|pass(?:phrase|code)|\bpwd) {_EQUALS}
        | (?: (?:passw(?:or)?d|pass(?:phrase|code)|pwd|secret|token|credential|signature|\bsig
              |(?:api|access|account|private|signing|shared)[_-]?key)
            [\w.-]{{0,30}}
            | (?:\b|(?<=_))pass | (?<=["'])auth
          )
          (?: \\*+["'`]?\s*+=>?\s*+ | \\*+["'`]\s*+:\s*+ | :(?=\S) | :\s++(?=b?\\*+["'`]) )
          (?!{_EMPTY})
    ) {_OPENING} ) {_SCHEME} {_VALUE}"""
)
# In a log also `NAME: pw` where a line starts with the name, perhaps after its time and level, or
# where the name is written as a variable's. "PASS: 12" is the result of a test.
_ENTRY = _compile(
    rf"""(?P<kept>
        (?: (?m:^) (?:[\[(]?\d[\d:.,TZ/+-]*+[\])]?[ \t]++){{0,2}}+
          (?:[\[(]?(?:trace|debug|info|notice|warn(?:ing)?|error|fatal)[\])]?:?[ \t]++)?+ [ \t>*-]*+
          | (?<![\w.$-]) (?: (?=[a-z\d]*+_) | (?-i:(?=[A-Z\d_]++:)) ) )
        (?=[\w-]{{1,80}}+:[ \t]) [\w-]{{0,60}}? (?: secret | token | credentials? | pwd | (?<=_)pass
          | (?:account|encryption|master|secret|shared|signing)[_-]?key )
        (?:[_-](?:key|base|value|hash|old|new|\d++)){{0,3}}+
        :[ \t]++ (?!{_PROSE}|{_EMPTY})
        (?! (?:ok|valid|found|loaded|created|updated|refreshed)\b | [a-z]++[ ][a-z]++[ ] )
    {_OPENING} ) {_SCHEME} {_VALUE}"""
)
# A number after one of these names is no secret: `max_tokens=4096`, `token.go:12`, `token-api:80`.
_NUMBER = _compile(
    r"""(?:
        [\w.-]{0,40}? (?:tokens|count|limit|length|size|version|ttl|pass) [^\w.-]*+ \d[\d.]*+
        | \w++(?:-\w++)*+ \.[a-z]{1,5} : \d++ (?::\d++)?
        | \w++(?:-\w++)++ : \d{2,5} (?:[:/]\S*+)?
    ) \W*+"""
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
# In a log only before a server: within a line of JSON, an `@` follows many a colon.
_LOGIN = _compile(
    r"""(?<![\w.%+-]) (?P<kept>(?!npm:)[\w.%+-]{1,64}:) (?!//|\d{1,5}/) [^\s:@,"'`{}[\]]{1,256}
    (?=@ (?:\w{2,4}\( | [\w.-]{1,255}(?::\d{2,5}\b|/)) )"""
)
# `--password pw`, `-u user:pw`
_OPTION = _compile(
    rf"""(?P<kept>(?<![^\s"'\[]) (?:
        --?[\w-]{{0,40}}? (?:password|passwd|token|secret|api-?key) \s++
        | (?:-u|--user) \s++ [\w.@-]{{1,64}}: (?!\d++(?!\S))
    ))
    (?!-) (?:{_QUOTED}|{_UNQUOTED}++)"""
)
# What is a secret by its own form. The first letters halve the time, too.
_KEY = "[A-Z0-9 ]{0,40}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----"
_KEY_BEGIN, _KEY_END = re.compile(f"-----BEGIN {_KEY}"), re.compile(f"-----END {_KEY}")
_KEY_BODY = re.compile("[A-Za-z0-9+/]{60}")
_KNOWN = re.compile(
    rf"""(?=[-AGSaeghnprstwxy]) (?P<kept>) (?:
        {_KEY_BEGIN.pattern.replace(" ", "[ ]", 1)} (?: .*? -----END[ ]{_KEY} | .* )
        | (?<![A-Za-z0-9]) (?:
            (?:A3T|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{{16}}(?![A-Za-z0-9])  # Amazon
            | AIza[\w-]{{35}} | ya29\.[\w-]{{20,}} | GOCSPX-[\w-]{{20,}}  # Google
            | gh[pousr]_\w{{30,255}} | github_pat_\w{{22,255}} | glpat-[\w-]{{20,255}}
            | xox[a-z]-[\w-]{{10,}} | xapp-[\w-]{{10,}}  # Slack
            | hooks\.slack\.com/[^\s"']++ | api/webhooks/[^\s"']++  # the latter Discord's
            | (?:sk|rk|pk)_(?:live|test)_\w{{10,}} | whsec_[\w+/=]{{16,}}  # Stripe
            | sk-[\w-]{{20,}} | SK[0-9a-f]{{32}} | SG\.[\w-]{{16,}}\.[\w-]{{16,}}
            | npm_\w{{36}} | pypi-[\w-]{{50,}} | hv[sb]\.[\w-]{{20,}} | rfd_[\w-]{{40,}}
            | eyJ[\w-]{{8,500}}+ (?:\.[\w-]*+){{2,4}}  # JSON Web Tokens
        )
    )""",
    re.VERBOSE | re.DOTALL,
)
_MARK = "\ufdd0"  # for a secret while a line is redacted: no character, and never part of a text
_MARKS = re.compile(f"{_MARK}+")


def redact_secrets(text: str) -> str:
    """Return the text with URLs reduced to scheme and host, and without passwords and tokens.

    A secret is recognised by what is around it: one that stands alone remains.
    """
    text = _URLS.sub(partial(_redact_urls, redact_url=_redact_url), text)
    for pattern in (_COOKIES, _AUTHORIZATION, _NAMED, _BEARER, _USER_PASSWORD):
        text = pattern.sub(_redact_secret, text)
    return text


def redact_lines(lines: Sequence[str], values: SecretValues) -> Iterator[tuple[str, bool]]:
    """Yield each line of a log as by `redact_line`; of a private key over several lines nothing."""
    present = values.present_in(lines)
    of_keys = _private_key_lines(lines)
    for index, line in enumerate(lines):
        yield (REDACTED, True) if index in of_keys else redact_line(line, present)


def redact_line(text: str, values: SecretValues) -> tuple[str, bool]:
    """Return a line of a log with REDACTED in place of each secret, and whether there was one.

    Unlike `redact_secrets` it leaves URLs, but for their passwords and webhooks, and removes what
    is a secret by its own form or one of `values`. An encoded secret is recognised only as one of
    `values`, on its own.
    """
    text = values.replace_in(text.replace(_MARK, "\ufffd"), _MARK)
    text = _URLS.sub(partial(_redact_urls, redact_url=_redact_login), text)
    for pattern in (_KNOWN, _COOKIES, _AUTHORIZATION, _NAMED, _ENTRY, _OPTION, _BEARER, _LOGIN):
        text = pattern.sub(partial(_redact_secret, mark=_MARK), text)
    return _MARKS.sub(REDACTED, text), _MARK in text


def _private_key_lines(lines: Sequence[str]) -> set[int]:
    """Return the indexes of lines after the first one of a private key.

    Its begin or end may be missing: then what looks like a part of it counts.
    """
    found: set[int] = set()
    begin = None
    for index, line in enumerate(lines):
        if _KEY_BEGIN.search(line):
            begin = None if _KEY_END.search(line) else index
        elif _KEY_END.search(line):
            if begin is None or index - begin > MAX_KEY_LINES:
                begin = max(index - 2, -1)  # the last line before the end may be short
                while begin >= 0 and _KEY_BODY.search(lines[begin]):
                    begin -= 1
            found.update(range(begin + 1, index + 1))
            begin = None
        elif (
            begin is not None
            and (index - 1 == begin or index - 1 in found)
            and _KEY_BODY.search(line)
        ):
            found.add(index)
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


def _redact_secret(secret: re.Match[str], mark: str = "…") -> str:
    return secret[0] if _NUMBER.fullmatch(secret[0]) else f"{secret['kept']}{mark}"
