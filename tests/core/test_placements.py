"""Gradients cut otherwise than their parameters, or of which nothing is here."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor

from flatmin.core import Step
from flatmin.core._shards import Shards, placed_as
from flatmin.core.noise import SplitNoise
from flatmin.core.sparse import FisherMasked
from tests.problems import OneProcess


def test_a_gradient_is_brought_to_the_placement_of_its_parameter() -> None:
    with OneProcess():
        mesh = init_device_mesh("cpu", (1,))
        w = distribute_tensor(torch.zeros(3), mesh, [Shard(0)])
        sums = DTensor.from_local(torch.arange(3.0), mesh, [Partial()])
        g = placed_as(sums, w)
        assert isinstance(g, DTensor)
        assert g.placements == w.placements
        assert torch.equal(g.to_local(), torch.arange(3.0))


def test_a_process_without_entries_takes_part_in_a_norm() -> None:
    with OneProcess():
        shards = Shards([((dist.group.WORLD,), [0]), ((), [1])])
        norm = shards.norm([torch.empty(0), torch.tensor([3.0, 4.0])])
        assert norm.item() == 5.0


def test_gradients_of_single_examples_need_whole_weights() -> None:
    with OneProcess():
        mesh = init_device_mesh("cpu", (1,))
        w = distribute_tensor(torch.zeros(3), mesh, [Shard(0)])
        groups = [{"sam_rho": 0.5}]
        step = Step(0, nn.Module(), [w], groups, group_of=[0])
        program = FisherMasked(share=0.5, every=1, samples=1)(step)
        with pytest.raises(ValueError, match=r"sparse SAM needs .* single examples"):
            next(program)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_noise_of_a_cut_filter_is_that_of_the_whole(axis: int) -> None:
    whole = torch.arange(1.0, 13.0).view(3, 4)
    with OneProcess():
        mesh = init_device_mesh("cpu", (1,))
        cut = distribute_tensor(whole, mesh, [Shard(axis)])
        (a,), (b,) = (noise_on(w) for w in (whole, cut))
        assert torch.equal(a, b)


def noise_on(w: torch.Tensor) -> list[torch.Tensor]:
    """What the second half of a batch sees beside ``w``."""
    step = Step(3, nn.Module(), [w], [{"sam_rho": 0.5}], group_of=[0])
    program = SplitNoise()(step)
    next(program)
    asked = program.send([w]).at
    assert asked is not None
    return [e for e in asked.eps if e is not None]
