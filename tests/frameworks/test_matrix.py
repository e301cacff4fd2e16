"""No cell of the matrix is silently wrong, and each says what the docs say."""

from __future__ import annotations

import pytest

from tests.distributed.ranks import Ranks
from tests.frameworks.cells import QUICK, cells_of
from tests.frameworks.hosts import MODULES
from tests.frameworks.judge import ALL_COLUMNS
from tests.frameworks.scenario import METHODS


@pytest.mark.parametrize("module", MODULES)
def test_the_quick_cells_of_sam(module: str) -> None:
    assert [c for c in cells_of(module, ["sam"], QUICK) if not c.fine] == []


@pytest.mark.everything
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("module", MODULES)
def test_all_cells(module: str, method: str, ranks: Ranks) -> None:
    found = cells_of(module, [method], ALL_COLUMNS, ranks)
    assert len(found) >= len(ALL_COLUMNS)
    assert [cell for cell in found if not cell.fine] == []
