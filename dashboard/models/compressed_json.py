"""A field for the steps of runs: JSON values that are read one at a time, and never searched."""

import zlib
from typing import Any

import msgspec
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

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


class CompressedJSONField(models.BinaryField):  # type: ignore[type-arg]
    """A JSON value, stored compressed; steps of a run take a tenth of their JSON."""

    def get_internal_type(self) -> str:
        return "BinaryField"

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.BinaryField", args, kwargs  # migrations import no models

    def value_to_string(self, obj: models.Model) -> str:
        """Return the value as JSON, for `dumpdata`."""
        return msgspec.json.encode(self.value_from_object(obj)).decode()

    def to_python(self, value: Any) -> Any:
        """Return the value of its JSON, for `loaddata`."""
        return msgspec.json.decode(value) if isinstance(value, str) else value

    def from_db_value(self, value: Any, *_: object) -> Any:
        return None if value is None else decompress(value)

    def get_db_prep_value(
        self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False
    ) -> Any:
        compressed = None if value is None else compress(value)
        return super().get_db_prep_value(compressed, connection, prepared)
