"""JSON values compressed as they are stored: the steps of runs."""

import zlib
from typing import Any

import msgspec

# What the JSON of all steps has in common (northflank/models.py: Node): with it, a run's steps take
# a tenth of their JSON. Stored values refer to it, so it never changes. A value compressed without
# it is read, too.
_STEP = (
    b'","error_code":null,"error_message":null,"attempts":1,"max_attempts":3,'
    b'"next_attempt_at":null,"started_at":"2026-01-01T00:00:00Z",'
    b'"ended_at":"2026-01-01T00:00:00Z","condition":"success","timeout_seconds":1800,'
    b'"parallel":false,"skip":false,"steps":[],"target_kind":null,"required_approvals":null,'
    b'"iterations":null},{"kind":"'
)
_DICTIONARY = (
    b'{"kind":"Workflow","ref":null,"label":"Workflow","status":"success","error_code":null,'
    b'"error_message":null,"attempts":null,"max_attempts":null,"next_attempt_at":null,'
    b'"started_at":"2026-01-01T00:00:00Z","ended_at":"2026-01-01T00:00:00Z","condition":null,'
    b'"timeout_seconds":null,"parallel":false,"skip":false,"steps":[{"kind":"Build","ref":"",'
    b'"label":"","status":"success' + _STEP + b'Release","ref":"","label":"","status":"'
)


def compress(value: Any) -> bytes:
    """Return a JSON value compressed, as it is stored."""
    compressor = zlib.compressobj(zdict=_DICTIONARY)
    return compressor.compress(msgspec.json.encode(value)) + compressor.flush()


def decompress(value: bytes) -> Any:
    """Return the JSON value of a stored one."""
    return msgspec.json.decode(zlib.decompressobj(zdict=_DICTIONARY).decompress(value))
