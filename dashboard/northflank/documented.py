"""What Northflank documents of its answers, and where an answer differs. Pure.

Only for `manage.py check_upstream`: `decoding.py` tolerates every difference found here. They
contain no ids, names or values of the account, so they can be pasted into a bug report.
Reference: https://northflank.com/docs/v1/api, and the types of the official clients.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dashboard.northflank import responses
from dashboard.northflank.http import Answer
from dashboard.northflank.values import as_datetime

MAX_DIFFERENCES = 40  # of one answer; a page of another API differs in everything
_MAX_DEPTH = 150  # objects and arrays inside each other; a step is three deeper than its parent
# A value or name is quoted only if it can be a word of an API: no id, no secret, no sentence.
_WORD = re.compile(r"[A-Za-z_$-]{1,30}|v?[0-9.]{1,8}")
_MEDIA_TYPE = re.compile(r"[a-z]{1,20}/[a-z.+-]{1,30}")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
RATE_LIMIT_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


class Kind(StrEnum):
    """A shape without fields; the value is its name in a difference."""

    TEXT = "text"
    TIME = "a time as text"
    WHOLE = "a whole number"
    NUMBER = "a number"
    FLAG = "true or false"
    OBJECT = "an object"
    ARRAY = "an array"
    ANY = "anything"


@dataclass(frozen=True, slots=True)
class Difference:
    """Where answers differ from the documentation, how, and how often."""

    route: str  # "GET runs"
    field: str  # "data.runs[].status"; "" for the answer as a whole
    problem: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class _Words:
    """One of these texts."""

    words: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Object:
    """An object with these fields; a name with "?" is optional, so it may be null too.

    `is_open`: its other fields depend on its kind and are not compared.
    """

    fields: dict[str, "_Shape"]
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class _Array:
    item: "_Shape"


type _Shape = Kind | _Words | _Object | _Array


def _words(text: str) -> _Words:
    return _Words(frozenset(text.split()))


# --- the documented shapes -----------------------------------------------------------------------

_RUN_STATUS = _words(
    "pending queued running waiting retrying async_wait approval_wait aborting aborted success "
    "failure skipped unknown"
)
_STEP_STATUS = _words(
    "waiting invalid failure retrying success aborted aborting skipped async_wait approval_wait "
    "unknown"
)
_STEP_KIND = _words(
    "Workflow RolloutStrategy AddonBackup AddonImport Build JobRun LoopWorkflow Action Condition "
    "Release Message LoopData SecretInheritance Approval RunTemplate"
)
_POLICY = _words("allow queue forbid latest replace")
_OPTIONS = _Object({"concurrencyPolicy?": _POLICY, "paused?": Kind.FLAG})

_STEP_RESPONSE = _Object(
    {
        "status": _STEP_STATUS,
        "error?": _Object({"code": Kind.WHOLE, "message": Kind.TEXT}),
        "retries?": _Object(
            {
                "attempts": Kind.WHOLE,
                "maxAttempts": Kind.WHOLE,
                "timestamp": Kind.WHOLE,
                "nextAttempt?": Kind.WHOLE,
                "initialCheckTime?": Kind.WHOLE,
            }
        ),
        "startTime?": Kind.WHOLE,
        "endTime?": Kind.WHOLE,
        "data?": Kind.ANY,
    }
)
_STEP = _Object(
    {
        "kind": _STEP_KIND,
        "ref?": Kind.TEXT,
        "condition?": Kind.TEXT,
        "timeoutDuration?": Kind.ANY,  # seconds, or a reference as text
        "skipNodeExecution?": Kind.TEXT,
        "settings?": _Object(
            {
                "maxAttempts?": Kind.WHOLE,
                "backoff?": _Object({"type": Kind.TEXT, "delay": Kind.WHOLE}),
            }
        ),
        "response?": _STEP_RESPONSE,
    }
)
_STEP.fields["spec?"] = _Object({"steps?": _Array(_STEP)}, is_open=True)

_LISTED_RUN: dict[str, _Shape] = {
    "id": Kind.TEXT,
    "name?": Kind.TEXT,
    "description?": Kind.TEXT,
    "status": _RUN_STATUS,
    "startedAt?": Kind.TIME,
    "concluded": Kind.FLAG,
    "concludedAt?": Kind.TIME,
    "createdAt": Kind.TIME,
    "updatedAt": Kind.TIME,
}
_DEFINITION: dict[str, _Shape] = {
    "apiVersion": _words("v1.2"),
    "spec": _STEP,
    "arguments?": Kind.OBJECT,
    "triggers?": Kind.ARRAY,
    "options?": _OPTIONS,
    "gitops?": Kind.OBJECT,
    "$schema?": Kind.TEXT,
}
_PAGINATION = _Object({"hasNextPage": Kind.FLAG, "cursor?": Kind.TEXT, "count": Kind.NUMBER})
_TEXTS = _Array(Kind.TEXT)


def _list(key: str, item: dict[str, _Shape]) -> _Object:
    data = _Object({key: _Array(_Object(item))})
    return _Object({"data": data, "pagination": _PAGINATION})


_SHAPES: dict[str, _Object] = {
    "GET auth": _Object(
        {
            "data": _Object(
                {
                    "tokenKind": _words("api session workload"),
                    "id": Kind.TEXT,
                    "name?": Kind.TEXT,
                    "description?": Kind.TEXT,
                    "entityId": Kind.TEXT,
                    "entityUid": Kind.TEXT,
                    "entityType": _words("team org"),
                    "orgId?": Kind.TEXT,
                    "orgUid?": Kind.TEXT,
                    "role?": _Object(
                        {
                            "name?": Kind.TEXT,
                            "roleId?": Kind.TEXT,
                            "roleType?": _words("team org"),
                            "entityType?": _words("team org"),
                        }
                    ),
                    "permissions?": _Object(
                        {"orgScope?": _TEXTS, "teamScope?": _TEXTS, "projectScope?": _TEXTS}
                    ),
                    "projectRestrictions?": _Object(
                        {
                            "enabled?": Kind.FLAG,
                            "projects?": _TEXTS,
                            "restrictionMode?": _words("in notIn"),
                        }
                    ),
                    "scope?": _words("own-project role"),
                    "workload?": Kind.OBJECT,
                    "workloadIdentity?": Kind.OBJECT,
                    "creatorEmail?": Kind.TEXT,
                    "createdAt": Kind.TIME,
                    "expiresAt?": Kind.TIME,
                }
            )
        }
    ),
    "GET projects": _list(
        "projects",
        {
            "id": Kind.TEXT,
            "name": Kind.TEXT,
            "description?": Kind.TEXT,
            "uid?": Kind.TEXT,
            "lifecycleStatus?": Kind.TEXT,
        },
    ),
    "GET pipelines": _list(
        "pipelines",
        {
            "id": Kind.TEXT,
            "name": Kind.TEXT,
            "description?": Kind.TEXT,
            "createdAt?": Kind.TIME,
            "updatedAt?": Kind.TIME,
        },
    ),
    "GET pipeline": _Object(
        {
            "data": _Object(
                {
                    "name": Kind.TEXT,
                    "description?": Kind.TEXT,
                    "preview?": Kind.OBJECT,
                    "stages?": Kind.ARRAY,
                    "nfObjects?": _Array(
                        _Object(
                            {
                                "id": Kind.TEXT,
                                "type": _words("service job addon"),
                                "stage": _words("Development Staging Production"),
                            }
                        )
                    ),
                }
            )
        }
    ),
    "GET release-flow": _Object(
        {
            "data": _Object(
                _DEFINITION
                | {
                    "status": _RUN_STATUS,
                    "paused": Kind.FLAG,
                    "createdAt": Kind.TIME,
                    "updatedAt": Kind.TIME,
                    "stage?": Kind.TEXT,
                    "concurrencyPolicy?": _POLICY,
                    "richInputs?": Kind.ARRAY,
                    "teardownSpec?": Kind.OBJECT,
                }
            )
        }
    ),
    "GET runs": _list("runs?", _LISTED_RUN),
    "GET run": _Object(
        {"data": _Object(_LISTED_RUN | _DEFINITION | {"refs?": Kind.OBJECT})},
    ),
}
_ERROR = _Object(
    {
        "error": _Object(
            {
                "status?": Kind.NUMBER,
                "message": Kind.TEXT,
                "id?": Kind.TEXT,
                "details?": Kind.ANY,
            }
        )
    }
)


# --- the comparison ------------------------------------------------------------------------------


def find_differences(answer: Answer) -> list[Difference]:
    """Return where an answer differs from what is documented for its route and status.

    Fields that are not documented count too. At most MAX_DIFFERENCES.
    """
    if answer.status >= 500:
        return []  # perhaps of a proxy
    problems: Counter[tuple[str, str]] = Counter(_header_problems(answer.headers))
    if 200 < answer.status < 400:
        problems["", f"status {answer.status} instead of 200"] += 1
    if answer.status != 429:  # its body is not documented
        problems.update(_body_problems(answer))
    return [
        Difference(answer.route, field, problem, count)
        for (field, problem), count in list(problems.items())[:MAX_DIFFERENCES]
    ]


def _body_problems(answer: Answer) -> Iterator[tuple[str, str]]:
    shape = _SHAPES[answer.route] if 200 <= answer.status < 300 else _ERROR
    try:
        payload = responses.load_json(answer.body)
    except ValueError:
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        type_text = f" but {media_type}" if _MEDIA_TYPE.fullmatch(media_type) else ""
        yield "", f"not JSON{type_text}" if answer.body.strip() else "empty body"
    except RecursionError:
        yield "", "nested too deeply"
    else:
        yield from _compare(payload, shape, "", depth=0)


def _header_problems(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in RATE_LIMIT_HEADERS:
        value = headers.get(name)
        if value is None:
            yield f"header {name}", "missing"
        elif not _NUMBER.fullmatch(value.strip()):
            yield f"header {name}", "no plain number"


def _compare(value: object, shape: _Shape, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield field and problem of each difference in `value`."""
    if depth > _MAX_DEPTH:
        yield "", "nested too deeply"
    elif isinstance(shape, _Object):
        if isinstance(value, dict):
            yield from _compare_fields(value, shape, path, depth)
        else:
            yield path, f"{_describe_type(value)} instead of an object"
    elif isinstance(shape, _Array):
        if isinstance(value, list):
            for item in value:
                yield from _compare(item, shape.item, f"{path}[]", depth + 1)
        else:
            yield path, f"{_describe_type(value)} instead of an array"
    elif isinstance(shape, _Words):
        if not isinstance(value, str):
            yield path, f"{_describe_type(value)} instead of text"
        elif value not in shape.words:
            value_text = f"“{value}”" if _WORD.fullmatch(value) else f"of {len(value)} characters"
            yield path, f"value {value_text} is not documented"
    elif not _is_kind(value, shape):
        yield path, f"{_describe_type(value)} instead of {shape}"


def _compare_fields(
    fields: dict[str, object], shape: _Object, path: str, depth: int
) -> Iterator[tuple[str, str]]:
    prefix = f"{path}." if path else ""
    names = set()
    for key, field_shape in shape.fields.items():
        name = key.removesuffix("?")
        names.add(name)
        if fields.get(name) is None and name != key:
            continue
        if name not in fields:
            yield f"{prefix}{name}", "missing"
        else:
            yield from _compare(fields[name], field_shape, f"{prefix}{name}", depth + 1)
    if not shape.is_open:
        for name in fields.keys() - names:
            yield f"{prefix}{name if _WORD.fullmatch(name) else '…'}", "field is not documented"


def _is_kind(value: object, kind: Kind) -> bool:
    match kind:
        case Kind.TEXT:
            return isinstance(value, str)
        case Kind.TIME:
            return isinstance(value, str) and as_datetime(value) is not None
        case Kind.WHOLE:
            return isinstance(value, int) and not isinstance(value, bool)
        case Kind.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Kind.FLAG:
            return isinstance(value, bool)
        case Kind.OBJECT:
            return isinstance(value, dict)
        case Kind.ARRAY:
            return isinstance(value, list)
        case Kind.ANY:
            return True


def _describe_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "an object" if isinstance(value, dict) else "an array"
