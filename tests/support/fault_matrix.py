"""Which cells of the matrix of calls and faults a run of the tests tries."""

from collections.abc import Collection, Sequence
from itertools import product

from tests.support.services import EXHAUSTIVE


def matrix(
    calls: Sequence[str], faults: Collection[str], *, step: int = 1
) -> list[tuple[str, str]]:
    """Return the cells to try: all of them for `make faults`, else each `step`th fault once.

    The latter meet each call about as often.
    """
    if EXHAUSTIVE:
        return list(product(calls, faults))
    return [(calls[n % len(calls)], fault) for n, fault in enumerate(list(faults)[::step])]
