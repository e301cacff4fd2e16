"""Units of length that make no sense."""

import math

import pytest

from flatmin.core.scales import Adaptive, Fisher


@pytest.mark.parametrize("eta", [-0.01, math.nan])
@pytest.mark.parametrize("kind", [Adaptive, Fisher])
def test_a_negative_eta_is_refused(kind: type[Adaptive | Fisher], eta: float) -> None:
    with pytest.raises(ValueError, match=f"eta must be at least 0, got {eta}"):
        kind(eta)
