"""Modes that come back, module by module."""

import pytest

from flatmin.diagnostics._still import evaluating
from tests.problems import Noisy


def test_each_module_is_in_its_own_mode_afterwards() -> None:
    model = Noisy()
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert model.training
    assert model[0].training
    assert not model[1].training


def test_modes_come_back_after_an_exception() -> None:
    model = Noisy()
    with pytest.raises(KeyboardInterrupt), evaluating(model):
        raise KeyboardInterrupt
    assert all(module.training for module in model.modules())
