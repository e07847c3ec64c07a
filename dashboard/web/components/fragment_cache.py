"""The cache of rendered fragments: a Django cache backend in the memory of a process."""

import time
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any, ClassVar, cast

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

_DEFAULT_TIMEOUT = cast("float", DEFAULT_TIMEOUT)


class FragmentCache(BaseCache):
    """Texts by key; at most `MAX_ENTRIES`, those written longest ago dropped first.

    Django's own LocMemCache pickles each value: a page of 100 rows spent a twentieth of its time on
    that. Here a text is kept as UTF-8, since one "…" in it doubles the memory of a Python string;
    markup is returned as plain text. Other values are kept as they are: nobody may change them.
    """

    # Value and end of validity. Shared: Django has an instance for each thread. Ordered:
    # from the front of a `dict` each removal would pass over the gaps of all earlier ones.
    _entries: ClassVar[OrderedDict[str, tuple[Any, float | None]]] = OrderedDict()
    _lock: ClassVar[Lock] = Lock()

    def __init__(self, _location: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        entry = self._entries.get(key)
        if entry is None or (entry[1] is not None and entry[1] <= time.time()):
            return default
        value = entry[0]
        return value.decode() if isinstance(value, bytes) else value

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        found = ((key, self.get(key)) for key in keys)
        return {key: value for key, value in found if value is not None}

    def set(
        self,
        key: str,
        value: Any,
        timeout: float | None = _DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> None:
        stored = value.encode() if isinstance(value, str) else value
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = stored, self.get_backend_timeout(timeout)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
