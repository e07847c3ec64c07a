"""Secrets in texts for people, such as the error of a step or the lines of a log. Pure.

Known values, usual tokens and the values of certain names are replaced by REDACTED: a net, not a
wall. Every repetition is bounded or possessive, since time has to be linear in a text's length.
"""

import re
from collections.abc import Iterator, Sequence

from dashboard.northflank.secret_tokens import TOKEN
from dashboard.northflank.secret_values import SecretValues

REDACTED = "[redacted]"

# A name ends in one of these words.
_NAMES = r"""
    password passwd passphrase storepass keypass _pass _pwd _pat _auth secret secret_key_base token
    credentials? sig signature
    (?:access|account|admin|api|app|auth|client|encryption|license|master|private|secret)[_.-]?key
    (?:hmac|server|session|shared|signing|storage)[_.-]?key
"""
_NAME = f"(?:{'|'.join(_NAMES.split())})"
# The start of a value that is no secret: a word of a message, a mask, a variable, a call, a path.
_PLAIN = r"""
    (?:access|changed|denied|disabled|empty|enabled|expired|failed|false|found|has|invalid|is|loaded
      |missing|must|nil|none|no|not|null|off|ok|on|optional|permission|refreshed|required|set|str
      |string|true|undefined|unset|valid|was|yes)(?![\w-])
    |\*{3}|x{3}|\?|%s|\$\d|\$\{?[A-Z_]+\b|[{(<]|\[?(?:redacted|filtered)|\w[\w.]*\(|~?/\w+/\w|""|''
"""
_QUOTE = r"""\\*["'`]"""  # within a JSON string, quotes have backslashes
_VALUE = rf"""(?:
    (?P<quote>{_QUOTE}).{{0,2000}}?(?<!\\)(?P=quote)(?:\s->\s"[^"]*")?  # Terraform: "old" -> "new"
    |(?:[^\s"'`&;,]|,(?!\s|\w+[=:]))+)"""
_NAMED = rf"""(?P<kept>
    {_NAME}(?:
        (?:\\*["'`\]])*+\s*+(?:=>|:=|[=:])\s*+(?={_QUOTE})  # name = "value", "name": "value"
        |=(?!=)  # name=value
        |\ ?[=:][ \t]++(?![a-z]+\ [a-z])  # name: value, but "secret: the server has none"
    )
    |(?<!\S)["']?--?[\w-]{{0,40}}?{_NAME}(?:\s++|["'],\s*+)  # --name value
        (?!-|id=|(?-i:[A-Z]+\b)|\S+(?:\s\s|]))  # not --name VALUE, as in help
    |\bsshpass\s+-p\s*
    |(?<!\S)(?:-u|--user)\s+["']?[\w.@-]{{1,64}}:(?!\d+\b)  # curl -u user:password
    )(?!(?:{_QUOTE})?(?:{_PLAIN})){_VALUE}"""
_HEADER = rf"""(?P<kept>\b(?:authorization|cookie)["']?\s*+[:=,]\s*+[\[(]?)(?!["']?(?:{_PLAIN}))
    (?:["'][^"'\n]*["']|(?:="[^"\n]*"|[^"'\n])+)"""
_BEARER = r"(?P<kept>\bbearer\s+)(?=\S{0,60}\d)(?!\w+=\w)[\w.~+/=-]{8,}"
# user:password@, or a token@, but not /@scope and not git@. A password may contain `/`.
_LOGIN = r"""(?P<kept>://)(?!git@)
    (?:[^\s/?\#"'`<>]{1,256}|[^\s/:@"'`<>]{0,64}:(?!\d+[/?])[^\s"'`<>]{1,256})(?=@)"""
_BLOCK = "[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_KEY_BEGIN, _KEY_END = re.compile(f"-----BEGIN {_BLOCK}"), re.compile(f"-----END {_BLOCK}")
_KEY = re.compile(rf"(?s)(?P<kept>){_KEY_BEGIN.pattern}.*?(?:{_KEY_END.pattern}|\Z)")
_KEY_BODY = re.compile(r"\s*(?:[A-Za-z0-9+/=]*|[A-Z][\w-]*: .*)\s*")

_FORMS = (
    _KEY,
    TOKEN,
    *(re.compile(form, re.VERBOSE | re.IGNORECASE) for form in (_LOGIN, _HEADER, _BEARER, _NAMED)),
)
_URL_REST = re.compile(r"""(://[\w.:@\[\]-]+)[^\s"'`<>\\),;:\w.@\[\]-][^\s"'`<>]*""")


def redact_secrets(text: str) -> str:
    """Return the text of an error without secrets, and with URLs reduced to scheme and host."""
    return _URL_REST.sub(r"\1/…", _redact(text))


def redact_lines(lines: Sequence[str], values: SecretValues) -> Iterator[tuple[str, bool]]:
    """Yield each line of a log without secrets, and whether one was removed.

    All lines have to be passed at one time: a private key has several.
    """
    key_lines, known = _private_key_lines(lines), values.pattern(lines)
    for index, line in enumerate(lines):
        text = known.sub(REDACTED, line) if known else line
        text = REDACTED if index in key_lines else _redact(text)
        yield text, text != line


def _redact(text: str) -> str:
    for form in _FORMS:
        text = form.sub(rf"\g<kept>{REDACTED}", text)
    return text


def _private_key_lines(lines: Sequence[str]) -> set[int]:
    """Return the indexes of the lines of private keys whose begin or end may not be among them."""
    found: set[int] = set()
    body: list[int] = []  # lines since the begin, or those that may be of a key
    is_in_key = False
    for index, line in enumerate(lines):
        if _KEY_END.search(line) and not _KEY_BEGIN.search(line):
            found.update(body, [index])
            is_in_key, body = False, []
        elif _KEY_BODY.fullmatch(line):
            body.append(index)
        else:
            if is_in_key:
                found.update(body)
            is_in_key, body = _KEY_BEGIN.search(line) is not None, []
    return found.union(body if is_in_key else ())
