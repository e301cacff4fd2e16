import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

import flatmin
from tests import tiers
from tests.distributed.ranks import Ranks

settings.register_profile("flatmin", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("flatmin")

# Threads that wait for each other beside another busy process cost minutes.
torch.set_num_threads(1)

# A mutant that is not the package under test would survive unseen.
_under_test = os.environ.get("FLATMIN_UNDER_TEST")
if _under_test is not None and not Path(str(flatmin.__file__)).is_relative_to(
    _under_test
):
    raise RuntimeError(f"{flatmin.__file__} is imported, not {_under_test}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # First: -m selects among the marks that are there.
    tiers.mark(items)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global stream is what SAM replays


def settings_of_torch() -> dict[str, object]:
    """What the last bit of a result may depend on."""
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
    }


@pytest.fixture(autouse=True)
def nothing_changed_for_later_tests() -> Iterator[None]:
    before = settings_of_torch()
    yield
    assert settings_of_torch() == before


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Two processes, started by the first test that asks for them."""
    processes = Ranks(tmp_path_factory.mktemp("gloo") / "meeting-point")
    yield processes
    processes.close()
