"""Wrong arguments and wrong use are refused at once, with what to do instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from torch import nn
from torch.optim import LBFGS, SGD, AdamW, Optimizer

from flatmin import SAM, core
from flatmin.core import Ask, Step, TwoPoint
from tests.problems import (
    Noisy,
    OneProcess,
    Scripted,
    batch,
    loss_of,
    mlp,
    passes,
    sam_steps,
    untouched,
)

DATA = batch()


def base_of(model: nn.Module, **options: Any) -> SGD:
    return SGD(model.parameters(), **{"lr": 0.1, **options})


def built(**options: Any) -> SAM:
    model = mlp(torch.float32)
    return SAM(base_of(model), model, **options)


def around(base: Callable[[nn.Module], Any], **options: Any) -> SAM:
    model = mlp(torch.float32)
    return SAM(base(model), model, **options)


def decoupled(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), weight_decay=0.1)


def within(model: Any) -> SAM:
    return SAM(base_of(mlp(torch.float32)), model)


def twice(model: nn.Module) -> Optimizer:
    base = base_of(model)
    SAM(base, model)
    return base


def radius_of_a_group() -> SAM:
    model = mlp(torch.float32)
    groups = [{"params": [*model.parameters()], "sam_rho": -0.5}]
    return SAM(SGD(groups, lr=0.1), model)


WRONG_ARGUMENTS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "rho negative": (lambda: built(rho=-0.1), ValueError, r"rho .* >= 0, got -0.1"),
    "rho nan": (lambda: built(rho=math.nan), ValueError, "rho .* finite .* got nan"),
    "rho inf": (lambda: built(rho=math.inf), ValueError, "rho .* finite .* got inf"),
    "rho str": (lambda: built(rho="0.05"), TypeError, r"got '0.05' \(str\)"),
    "rho bool": (lambda: built(rho=True), TypeError, r"got True \(bool\)"),
    "rho none": (lambda: built(rho=None), TypeError, r"got None \(NoneType\)"),
    "rho of a group": (radius_of_a_group, ValueError, r"sam_rho .* got -0.5"),
    "p small": (lambda: built(p=0.5), ValueError, r"p must be in \[1, inf\], got p=0"),
    "p nan": (lambda: built(p=math.nan), ValueError, "got p=nan"),
    "p str": (lambda: built(p="inf"), TypeError, r"p must be a number, got 'inf'"),
    "norm_over": (lambda: built(norm_over="layer"), ValueError, "got 'layer'"),
    "method and p": (
        lambda: built(method=TwoPoint(), p=1.0),
        ValueError,
        "either method or p and norm_over",
    ),
    "method and norm_over": (
        lambda: built(method=TwoPoint(), norm_over="group"),
        ValueError,
        "either method or p and norm_over",
    ),
    "unknown option": (lambda: built(rhoo=1), TypeError, "unexpected keyword"),
    "model a list": (lambda: within([1]), TypeError, "Module, got list"),
    "model parameters": (
        lambda: within(mlp().parameters()),
        TypeError,
        r"got generator. Write SAM\(base, model\)",
    ),
    "model empty": (lambda: within(nn.ReLU()), ValueError, "ReLU has no parameters"),
    "model of others": (lambda: within(mlp()), ValueError, "no parameter in common"),
    "base a class": (
        lambda: around(lambda model: SGD),
        TypeError,
        r"got the class SGD. Write\n    base = torch.optim.SGD\(model.parameters\(\), ",
    ),
    "base the parameters": (
        lambda: around(lambda model: model.parameters()),
        TypeError,
        r"must be a built optimizer, got parameters \(generator\)",
    ),
    "base a number": (
        lambda: around(lambda model: 3),
        TypeError,
        "must be a torch.optim.Optimizer, got int",
    ),
    "base LBFGS": (
        lambda: around(lambda model: LBFGS(model.parameters())),
        ValueError,
        "LBFGS calls its closure itself",
    ),
    "decoupled decay cannot climb": (
        lambda: around(decoupled, decay_in_ascent=True),
        ValueError,
        "decays the weights themselves",
    ),
    "base taken": (lambda: around(twice), ValueError, "already belongs to a SAM"),
    "base a SAM": (
        lambda: around(lambda model: SAM(base_of(model), model)),
        ValueError,
        "already belongs to a SAM",
    ),
}


@pytest.mark.parametrize("case", WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_a_wrong_argument_is_refused(
    case: tuple[Callable[[], Any], type[Exception], str],
) -> None:
    build, kind, message = case
    with pytest.raises(kind, match=message):
        build()


@pytest.mark.parametrize(
    "options", [{"rho": -1}, {"p": 0}, {"norm_over": "x"}, {"method": 1, "p": 1.0}]
)
def test_a_base_that_was_refused_can_be_used_afterwards(options: Any) -> None:
    model = mlp(torch.float32)
    base = base_of(model)
    with pytest.raises(ValueError, match=r"got|not both"):
        SAM(base, model, **options)
    SAM(base, model)


def test_bases_without_a_closure_or_with_an_optional_one_are_taken() -> None:
    class Bare(SGD):
        def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().step()

    model = mlp(torch.float32)
    for base in (Bare(model.parameters(), lr=0.1), Lion(model.parameters(), lr=0.1)):
        sam_steps(SAM(base, model), model, DATA, 1)


def test_a_scope_of_several_replicas_needs_replicas() -> None:
    model = mlp(torch.float32)
    with pytest.raises(ValueError, match=r"scope World needs .*, got Sequential"):
        SAM(base_of(model), model, scope=core.World())
    with OneProcess():
        group = torch.distributed.group.WORLD
        assert group is not None
        with pytest.raises(ValueError, match="scope Group needs"):
            SAM(base_of(model), model, scope=core.Group(group))


def test_a_static_graph_needs_an_averaged_first_pass() -> None:
    with OneProcess():
        model = nn.parallel.DistributedDataParallel(
            mlp(torch.float32), static_graph=True
        )
        with pytest.raises(ValueError, match=r"static_graph=True, .* scope Replica"):
            SAM(base_of(model), model)
        SAM(base_of(model), model, scope=core.World())


def test_parts_averaged_over_different_processes_have_no_common_scope(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes = iter([[0, 1], [0, 2]])
    with OneProcess():
        parts = [nn.parallel.DistributedDataParallel(nn.Linear(6, 6)) for _ in range(2)]
        model = nn.Sequential(*parts)
        SAM(base_of(model), model)
        monkeypatch.setattr(
            torch.distributed,
            "get_process_group_ranks",
            lambda group: next(processes),
        )
        with pytest.raises(ValueError, match="averaged over different processes"):
            SAM(base_of(model), model)


@pytest.mark.parametrize("scope", [core.Replica, core.Group])
def test_shards_cannot_hold_a_perturbation_per_process(
    scope: Callable[..., core.Scope],
) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with OneProcess():
        model = mlp(torch.float32)
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        chosen = scope(*[torch.distributed.group.WORLD] * (scope is core.Group))
        with pytest.raises(ValueError, match=r"sharded .* scope='world'"):
            SAM(base_of(model), model, scope=chosen)


NO_GRADIENT = r"needs the gradient of a finished probes\(\) loop"


def test_a_step_without_probes_is_refused() -> None:
    optimizer = built()
    with untouched(optimizer.model), pytest.raises(RuntimeError, match=NO_GRADIENT):
        optimizer.step()


def test_a_second_step_is_refused() -> None:
    optimizer = built()
    sam_steps(optimizer, optimizer.model, DATA, 1)
    with untouched(optimizer.model), pytest.raises(RuntimeError, match=NO_GRADIENT):
        optimizer.step()


def test_a_step_after_a_loop_that_was_left_is_refused() -> None:
    optimizer = built()
    passes(optimizer, optimizer.model, DATA)
    optimizer.step()
    for _ in optimizer.probes():
        loss_of(optimizer.model, DATA).backward()
        break
    with pytest.raises(RuntimeError, match=NO_GRADIENT):
        optimizer.step()


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_step_inside_the_loop_is_refused(chosen: int) -> None:
    optimizer = built()
    with untouched(optimizer.model):
        for probe in optimizer.probes():
            loss_of(optimizer.model, DATA).backward()
            if probe.index == chosen:
                with pytest.raises(RuntimeError, match=NO_GRADIENT):
                    optimizer.step()
    optimizer.step()


@contextmanager
def held(optimizer: SAM) -> Iterator[None]:
    """An open loop."""
    iterator = iter(optimizer.probes())
    next(iterator)
    yield
    del iterator


def test_a_loop_inside_a_loop_is_refused() -> None:
    optimizer = built()
    with untouched(optimizer.model):
        with held(optimizer), pytest.raises(RuntimeError, match="still open"):
            next(iter(optimizer.probes()))
        passes(optimizer, optimizer.model, DATA)


@pytest.mark.parametrize("name", ["rho", "base", "model", "scope"])
def test_an_attribute_that_no_step_would_follow_is_not_set(name: str) -> None:
    optimizer = built()
    before = dict(vars(optimizer))
    with pytest.raises(AttributeError, match=rf"optimizer\.{name} = .* Write "):
        setattr(optimizer, name, before.get(name, 0.1))
    assert dict(vars(optimizer)) == before


def test_a_step_with_a_closure_inside_a_loop_is_refused() -> None:
    optimizer = built()
    with held(optimizer), pytest.raises(RuntimeError, match="still open"):
        optimizer.step(lambda: None)


@pytest.mark.parametrize("method", [None, TwoPoint(gate=lambda step: False)])
def test_a_loop_without_backward_is_refused(method: TwoPoint | None) -> None:
    optimizer = built(method=method)

    def loop() -> None:
        for _ in optimizer.probes():
            loss_of(optimizer.model, DATA)

    with (
        untouched(optimizer.model),
        pytest.raises(RuntimeError, match="no parameter has"),
    ):
        loop()
    with pytest.raises(RuntimeError, match=NO_GRADIENT):
        optimizer.step()
    passes(optimizer, optimizer.model, DATA)


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_sparse_gradient_is_refused(chosen: int) -> None:
    model = nn.Embedding(4, 3)
    optimizer = SAM(base_of(model), model)

    def loop() -> None:
        for probe in optimizer.probes():
            model.sparse = probe.index == chosen
            model(torch.tensor([1, 2])).sum().backward()

    with untouched(model), pytest.raises(RuntimeError, match=r"\(4, 3\) has a sparse"):
        loop()
    model.sparse = False
    for _ in optimizer.probes():
        model(torch.tensor([1, 2])).sum().backward()


def test_a_batch_norm_model_is_fit_for_use_after_a_refusal() -> None:
    model = Noisy()
    optimizer = SAM(base_of(model), model)
    with pytest.raises(RuntimeError, match=NO_GRADIENT):
        optimizer.step()
    sam_steps(optimizer, model, DATA, 1)
    assert optimizer.statistics.passes == 2


def returns_nothing(step: Step) -> Any:
    del step
    yield Ask()


@pytest.mark.parametrize("method", [returns_nothing, Scripted, 3, "sam"])
def test_a_method_of_another_kind_is_refused_with_the_class_to_write(
    method: Any,
) -> None:
    with pytest.raises((TypeError, AttributeError)) as refused:
        built(method=method)
    assert refused.type is TypeError
    assert "class Mine(flatmin.core.Method)" in str(refused.value)


def test_a_gradient_is_averaged_in_one_way() -> None:
    assert Ask(climbs=True) != Ask(alone=True)
    with pytest.raises(ValueError, match=r"climbs=True.*alone=True.*not both"):
        Ask(climbs=True, alone=True)


def test_a_method_that_returns_nothing_is_told_what_to_return() -> None:
    model = mlp()
    optimizer = SAM(
        SGD(model.parameters(), lr=0.1), model, method=Scripted(returns_nothing)
    )
    with untouched(model), pytest.raises(TypeError, match="got NoneType"):
        passes(optimizer, model, batch(torch.float64))


@pytest.mark.parametrize("forgotten", [0, 1])
def test_a_pass_without_backward_is_refused(forgotten: int) -> None:
    model = mlp(torch.float32)
    optimizer = SAM(base_of(model), model)

    def loop() -> None:
        for probe in optimizer.probes():
            loss = loss_of(model, DATA)
            if probe.index != forgotten:
                loss.backward()

    with untouched(model), pytest.raises(RuntimeError, match="for every probe"):
        loop()


def test_the_radius_under_the_name_of_other_libraries_is_refused() -> None:
    model = mlp(torch.float32)
    optimizer = SAM(base_of(model), model)
    optimizer.param_groups[0]["rho"] = 0.2
    message = r'"sam_rho".*group\.pop\("rho"\)'
    with untouched(model), pytest.raises(ValueError, match=message):
        passes(optimizer, model, DATA)
    for group in optimizer.param_groups:
        group["sam_rho"] = group.pop("rho")
    sam_steps(optimizer, model, DATA, 1)


def test_a_rho_of_the_base_s_own_is_no_radius() -> None:
    model = mlp(torch.float32)
    optimizer = SAM(torch.optim.Adadelta(model.parameters(), rho=0.8), model)
    sam_steps(optimizer, model, DATA, 1)
    assert optimizer.param_groups[0]["rho"] == 0.8
