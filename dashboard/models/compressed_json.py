"""A field for the steps of runs: JSON values that are read one at a time, and never searched."""

from typing import Any

import msgspec
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from dashboard.db.compressed_json import compress, decompress


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
