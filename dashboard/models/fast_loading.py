"""Models of which pages and the sync load many rows."""

from collections.abc import Collection
from typing import Any, Self

from django.db import models
from django.db.models.base import ModelState


class FastLoading(models.Model):
    """A model whose instances are created from rows without `__init__` and its signals.

    `__init__` assigns each field through its descriptor, for the sake of fields that react to it;
    models with such fields, as ImageField, can't use this, nor those with receivers of these
    signals. It took a twentieth of a page's time.
    """

    class Meta:
        abstract = True

    @classmethod
    def from_db(
        cls,
        db: str | None,
        field_names: Collection[str],
        values: Collection[Any],
        *,
        fetch_mode: Any = None,
    ) -> Self:
        """Return the instance of a row; fields that are not in `field_names` are deferred."""
        instance = cls.__new__(cls)
        state = ModelState()
        state.adding, state.db = False, db
        if fetch_mode is not None:
            state.fetch_mode = fetch_mode
        vars(instance).update(zip(field_names, values, strict=True), _state=state)
        return instance
