import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

import flatmin

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


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global stream is what SAM replays
