"""Calls that other SAMs and frameworks make are refused with lines that run."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from torch import nn
from torch.optim import SGD, AdamW

import flatmin
from flatmin import SAM
from flatmin.methods import METHODS
from flatmin.optim._elsewhere import ATTRIBUTES, ELSEWHERE, FRAMEWORKS, PAGE
from tests.methods.table import NAMES
from tests.problems import batch, mlp, sam_steps

#: An answer to a call: what it says, and how the two lines go on.
SAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    # davda54/sam and pytorch_optimizer
    "SAM(model.parameters(), SGD, lr=0.1, momentum=0.9)": (
        "got parameters (generator)",
        (
            "base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)",
            "optimizer = flatmin.SAM(base, model)",
        ),
    ),
    "SAM(model.parameters(), Lion, 0.1, lr=0.01)": (
        "got parameters (generator)",
        (
            "base = Lion(model.parameters(), lr=0.01)",
            "optimizer = flatmin.SAM(base, model, rho=0.1)",
        ),
    ),
    "SAM(model.parameters(), base_optimizer=AdamW, rho=2.0, adaptive=True, "
    "lr=0.001, betas=(0.9, 0.95))": (
        "adaptive is flatmin.asam, whose rho is on another scale",
        (
            "base = torch.optim.AdamW(model.parameters(), lr=0.001, betas=(0.9, 0.95))",
            "optimizer = flatmin.asam(base, model)",
        ),
    ),
    "SAM(params=model.parameters(), base_optimizer=SGD, adaptive=False, lr=0.1)": (
        "Leave out adaptive=False",
        (
            "base = torch.optim.SGD(model.parameters(), lr=0.1)",
            "optimizer = flatmin.SAM(base, model)",
        ),
    ),
    "SAM(model.parameters(), SGD, use_gc=True, perturb_eps=1e-12, lr=0.1)": (
        "use_gc is flatmin.gcsam",
        (
            "base = torch.optim.SGD(model.parameters(), lr=0.1)",
            "optimizer = flatmin.gcsam(base, model)",
        ),
    ),
    # sam-pytorch
    "SAM(model.parameters(), base, rho=0.2)": (
        "got parameters (generator)",
        ("optimizer = flatmin.SAM(base, model, rho=0.2)",),
    ),
    # Composer, Keras, SamsungLabs/ASAM
    "SAM(base_optimizer=base, epsilon=1e-12, interval=10)": (
        "interval is k of flatmin.interval_sam, which multiplies rho by k",
        ("optimizer = flatmin.interval_sam(base, model, k=10)",),
    ),
    "SAM(model, rho=0.1, num_batch_splits=4)": (
        "one probes(accumulate=True) loop for each part",
        (
            "base = torch.optim.SGD(model.parameters(), lr=...)",
            "optimizer = flatmin.SAM(base, model, rho=0.1)",
        ),
    ),
    "SAM(base, model, rho=0.5, eta=0.02)": (
        "eta is flatmin.asam's",
        ("optimizer = flatmin.asam(base, model, eta=0.02)",),
    ),
    # What a framework does with a class
    "SAM(model.parameters(), lr=0.1)": (
        "base must be a built optimizer, got parameters",
        (
            "base = torch.optim.SGD(model.parameters(), lr=0.1)",
            "optimizer = flatmin.SAM(base, model)",
        ),
    ),
    "SAM([{'params': model.parameters(), 'lr': 0.1}], weight_decay=0.01)": (
        "base must be a built optimizer, got parameters (list)",
        (
            "base = torch.optim.SGD(model.parameters(), weight_decay=0.01)",
            "optimizer = flatmin.SAM(base, model)",
        ),
    ),
    "asam(model.parameters(), lr=0.1, rho=0.2)": (
        "asam(): base must be a built optimizer, got parameters",
        (
            "base = torch.optim.SGD(model.parameters(), lr=0.1)",
            "optimizer = flatmin.asam(base, model, rho=0.2)",
        ),
    ),
    "sparse_sam(model.parameters(), lr=0.1)": (
        "sparse_sam(): base must be a built optimizer",
        (
            "base = torch.optim.SGD(model.parameters(), lr=0.1)",
            "optimizer = flatmin.sparse_sam(base, model, every=...)",
        ),
    ),
    # Slips
    "SAM(model, base)": (
        "got the module Sequential. Base and model are swapped",
        ("optimizer = flatmin.SAM(base, model)",),
    ),
    "SAM(base=model, model=base)": (
        "got the module Sequential. Base and model are swapped",
        ("optimizer = flatmin.SAM(base, model)",),
    ),
    "SAM(SGD, model)": (
        "got the class SGD",
        (
            "base = torch.optim.SGD(model.parameters(), lr=...)",
            "optimizer = flatmin.SAM(base, model)",
        ),
    ),
    "SAM(base)": (
        "SAM(): missing a required argument: 'model'",
        ("optimizer = flatmin.SAM(base, model)",),
    ),
    "SAM(base, model, 0.1)": (
        "SAM(): too many positional arguments",
        ("optimizer = flatmin.SAM(base, model, rho=0.1)",),
    ),
    "SAM(base, model, lr=0.1)": (
        "unexpected keyword argument 'lr'. It is the base optimizer's",
        (
            "base = torch.optim.SGD(model.parameters(), lr=0.1)",
            "optimizer = flatmin.SAM(base, model)",
        ),
    ),
}


def world() -> dict[str, Any]:
    """The names that a call may use."""
    model = mlp(torch.float32)
    base = SGD(model.parameters(), lr=0.1)
    methods = {name: getattr(flatmin, name) for name in flatmin.__all__}
    own = {"model": model, "base": base, "torch": torch, "flatmin": flatmin}
    return methods | own | {"SGD": SGD, "AdamW": AdamW, "Lion": Lion}


def refused(call: str, names: dict[str, Any] | None = None) -> str:
    with pytest.raises(TypeError) as caught:
        eval(call, names or world())
    return str(caught.value)


@pytest.mark.parametrize("call", SAYS)
def test_a_foreign_call_is_answered_with_the_lines_to_write(call: str) -> None:
    says, lines = SAYS[call]
    told, _, rest = refused(call).partition(" Write\n")
    assert says in told
    *written, last = rest.splitlines()
    assert written == [f"    {line}" for line in lines]
    assert last == f"More: {PAGE}"


@pytest.mark.parametrize(
    "call", [c for c, (_, w) in SAYS.items() if "..." not in str(w)]
)
def test_the_lines_build_an_optimizer_that_steps(call: str) -> None:
    names = world()
    exec("\n".join(SAYS[call][1]), names)
    assert type(names["optimizer"]) is SAM
    sam_steps(names["optimizer"], names["model"], batch(), 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_answers_a_call_with_parameters(name: str) -> None:
    model = mlp(torch.float32)
    with pytest.raises(TypeError) as caught:
        METHODS[name].build(model.parameters(), SGD, lr=0.1)
    told = "SAM" if name == "sam" else name
    assert f"optimizer = flatmin.{told}(base, model" in str(caught.value)
    assert "base = torch.optim.SGD(model.parameters(), lr=0.1)\n" in str(caught.value)


def test_a_value_without_a_short_name_is_an_ellipsis() -> None:
    assert "SGD(model.parameters(), lr=..., f=...)" in refused(
        "SAM(model.parameters(), lr=torch.ones(1), f=lambda: 0)"
    )


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        ("SAM(base, model, rhoo=0.1)", "rho"),
        ("SAM(base, model, protect_buffer=False)", "protect_buffers"),
        ("asam(base, model, replayrng=False)", "replay_rng"),
        ("gsam(base, model, aplha=0.1)", "alpha"),
    ],
)
def test_a_slip_of_the_pen_is_told_what_was_meant(call: str, meant: str) -> None:
    told = refused(call)
    assert "got an unexpected keyword argument" in told
    assert told.endswith(f"Did you mean {meant!r}?")


def test_an_argument_that_nobody_has_is_told_what_there_is() -> None:
    told = refused("SAM(base, model, sharp=1)")
    assert told.startswith("SAM() got an unexpected keyword argument 'sharp'. ")
    assert told.endswith("it takes " + ", ".join(keywords(SAM)) + ".")


def keywords(build: Callable[..., Any]) -> list[str]:
    given = inspect.signature(build).parameters
    return [name for name, one in given.items() if one.kind is one.KEYWORD_ONLY]


def test_signatures_are_those_of_the_source() -> None:
    assert [*inspect.signature(SAM).parameters][:3] == ["base", "model", "rho"]
    assert [*inspect.signature(SAM.__init__).parameters][:2] == ["self", "base"]
    assert keywords(flatmin.asam) == ["rho", "eta"]
    assert "options" in inspect.signature(flatmin.asam).parameters
    assert inspect.getsourcefile(flatmin.asam) == inspect.getsourcefile(flatmin.usam)
    for name in NAMES[1:]:
        assert METHODS[name].build.__module__.startswith("flatmin.methods.")


def test_no_argument_of_ours_is_called_foreign() -> None:
    for entry in METHODS.values():
        given = inspect.signature(entry.build).parameters
        assert not (given.keys() - {"eta"}) & ELSEWHERE.keys()
    methods = {one.method for one in ELSEWHERE.values() if one.method}
    assert methods <= METHODS.keys()


def from_package(package: str) -> Callable[..., Any]:
    """A function of a framework that is given a class and calls it."""
    names: dict[str, Any] = {"__name__": f"{package}.optim"}
    exec("def create(kind, *args, **options): return kind(*args, **options)", names)
    return names["create"]


@pytest.mark.parametrize("package", FRAMEWORKS)
@pytest.mark.parametrize("build", [SAM, flatmin.asam])
def test_a_framework_that_is_given_a_class_is_named(
    build: Callable[..., SAM], package: str
) -> None:
    for args in ([mlp().parameters()], []):
        with pytest.raises(TypeError) as caught:
            from_package(package)(build, *args, lr=0.1)
        told = str(caught.value)
        assert f"{FRAMEWORKS[package].name} gives a class the parameters alone" in told
        assert told.endswith("docs/frameworks.md")


def test_a_framework_further_up_is_not_to_blame() -> None:
    names = world()
    told = from_package("skorch")(
        lambda: refused("SAM(model.parameters(), lr=0.1)", names)
    )
    assert "skorch" not in told


def test_timms_lines_run() -> None:
    import timm.optim

    lines = FRAMEWORKS["timm"].write.splitlines()[1:-1]
    names = {**world(), "timm": timm}
    exec(textwrap.dedent("\n".join(lines)).replace("...", "0.1"), names)
    sam_steps(names["optimizer"], names["model"], batch(), 1)


def built() -> SAM:
    model = mlp(torch.float32)
    return SAM(SGD(model.parameters(), lr=0.1), model)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_of_other_sams_is_missing_and_says_so(name: str) -> None:
    optimizer = built()
    assert not hasattr(optimizer, name)
    with pytest.raises(AttributeError, match=f"^flatmin.SAM has no {name}. Write\n"):
        getattr(optimizer, name)


def test_the_lines_for_first_step_are_a_step() -> None:
    x, y = batch()
    optimizer, loss = built(), nn.functional.cross_entropy
    with pytest.raises(AttributeError) as caught:
        optimizer.first_step(zero_grad=True)  # pyright: ignore[reportAttributeAccessIssue]
    lines = str(caught.value).splitlines()[1:-1]
    names = {"optimizer": optimizer, "loss_function": loss, "x": x, "y": y}
    exec(textwrap.dedent("\n".join(lines)), names | {"model": optimizer.model})
    assert optimizer.param_groups[0]["sam_step"] == 1


def test_any_other_attribute_is_missing_as_always() -> None:
    said = "^'SAM' object has no attribute 'first'$"
    with pytest.raises(AttributeError, match=said):
        _ = built().first  # pyright: ignore[reportAttributeAccessIssue]


def test_an_error_within_a_property_is_not_hidden() -> None:
    optimizer = built()
    del optimizer.__dict__["base"]
    with pytest.raises(AttributeError, match="no attribute 'base'"):
        _ = optimizer.param_groups


@pytest.mark.parametrize("loss", [torch.tensor(1.0), 0.5])
def test_a_loss_is_no_closure(loss: Any) -> None:
    optimizer = built()
    before = [p.detach().clone() for p in optimizer.model.parameters()]
    with pytest.raises(
        TypeError, match=rf"a closure, got {type(loss).__name__}. Write"
    ):
        optimizer.step(loss)
    for p, old in zip(optimizer.model.parameters(), before, strict=True):
        assert torch.equal(p, old)
    sam_steps(optimizer, optimizer.model, batch(), 1)


def test_the_page_is_there() -> None:
    assert (Path(__file__).parents[2] / PAGE).exists()
