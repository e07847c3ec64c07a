from collections.abc import Iterator

import pytest

from tests.support.notices import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver
