"""A field for large JSON values that are read one at a time, and never searched."""

import zlib
from typing import Any

import msgspec
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class CompressedJSONField(models.BinaryField):  # type: ignore[type-arg]
    """A JSON value, stored compressed: the steps of a run take a sixth of their JSON."""

    def get_internal_type(self) -> str:
        return "BinaryField"

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.BinaryField", args, kwargs  # migrations import no models

    def from_db_value(self, value: Any, *_: object) -> Any:
        return None if value is None else msgspec.json.decode(zlib.decompress(value))

    def get_db_prep_value(
        self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False
    ) -> Any:
        compressed = None if value is None else zlib.compress(msgspec.json.encode(value))
        return super().get_db_prep_value(compressed, connection, prepared)
