from collections.abc import Iterator

import pytest

from flatmin.conformance import stop_ranks


@pytest.fixture(scope="session", autouse=True)
def ranks() -> Iterator[None]:
    """The suite starts its two processes itself."""
    yield
    stop_ranks()
