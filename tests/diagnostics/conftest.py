from collections.abc import Iterator

import pytest
import torch.distributed as dist

from tests.problems import OneProcess


@pytest.fixture
def one_process() -> Iterator[dist.ProcessGroup]:
    with OneProcess():
        yield dist.group.WORLD  # pyright: ignore
