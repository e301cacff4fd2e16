"""Parameters that a forward pass changes itself: changed once, seen alike by all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM, late_sam
from flatmin.optim import _frozen, _tensor_copy
from flatmin.optim._frozen import FrozenReplay
from flatmin.optim._tensor_copy import TensorCopy
from tests.optim.kept import assert_as_on_copies
from tests.problems import assert_same, snapshot


class Teacher(nn.Module):
    """A student and a frozen teacher, which follows it in forward."""

    def __init__(self, follow: Callable[[Tensor, Tensor], None], late: int = 0) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        self.teacher.requires_grad_(False)
        self.follow, self.late = follow, late
        self.register_buffer("n", torch.zeros(()))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        if self.n >= self.late:
            pairs = zip(
                self.teacher.parameters(), self.student.parameters(), strict=True
            )
            for t, s in pairs:
                self.follow(t, s)
        self.n += 1
        return self.student(x) - self.teacher(x)


def in_place(t: Tensor, s: Tensor) -> None:
    with torch.no_grad():
        t.mul_(0.5).add_(0.5 * s)


def by_data(t: Tensor, s: Tensor) -> None:
    t.data.mul_(0.5).add_(0.5 * s.data)


def new_data(t: Tensor, s: Tensor) -> None:
    t.data = 0.5 * t.data + 0.5 * s.data


FOLLOW = [in_place, by_data, new_data]
every_way = pytest.mark.parametrize("follow", FOLLOW)
inputs = [
    torch.randn(6, 4, generator=torch.Generator().manual_seed(k)).double()
    for k in range(4)
]


def student(name: str) -> bool:
    return name.startswith("student")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frozen parameter is too large to be copied in every step."""
    monkeypatch.setattr(_frozen, "_ALWAYS", -1)


@every_way
def test_a_teacher_follows_once(follow: Any) -> None:
    assert_as_on_copies(Teacher(follow), inputs)


class Twice(Teacher):
    """Has a gradient also where student and teacher are equal."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.student(x)


def copied_teacher(follow: Any) -> Teacher:
    """Equal to its student, so that following it at w changes nothing in step 1."""
    model = Twice(follow)
    model.teacher.load_state_dict(model.student.state_dict())
    return model


@every_way
def test_a_teacher_that_starts_as_its_student_does_not_follow_to_w_eps(
    follow: Any,
) -> None:
    assert_as_on_copies(copied_teacher(follow), inputs, student)


@every_way
@pytest.mark.usefixtures("large")
def test_a_large_teacher_that_starts_as_its_student_does_not_either(
    follow: Any,
) -> None:
    assert_as_on_copies(copied_teacher(follow), inputs, student)


@pytest.mark.usefixtures("large")
def test_a_change_in_a_later_pass_of_which_there_is_no_copy_is_refused() -> None:
    # In step 3 nobody looks; at w the teacher equals its student, and stays untouched.
    model = copied_teacher(lambda t, s: None if torch.equal(t, s) else in_place(t, s))
    base = torch.optim.SGD(model.student.parameters(), lr=0.0)
    optimizer = SAM(base, model, rho=0.3)
    model.late = 2
    for x in inputs[:2]:
        step(optimizer, model, x)
    with pytest.raises(RuntimeError, match=r"changes the parameter 'teacher\.bias'"):
        step(optimizer, model, inputs[2])


@every_way
@pytest.mark.usefixtures("large")
def test_a_large_teacher_follows_once_from_the_first_step_on(follow: Any) -> None:
    assert_as_on_copies(Teacher(follow), inputs, student)


@pytest.mark.usefixtures("large")
def test_a_large_teacher_that_starts_to_follow_is_found_in_time() -> None:
    # Steps 1, 2 and 4 are looked at.
    assert_as_on_copies(Teacher(by_data, late=3), inputs, student)


@every_way
def test_parameters_that_could_be_trained_but_are_not_are_kept_too(follow: Any) -> None:
    model = Teacher(follow)
    model.teacher.requires_grad_(True)
    assert_as_on_copies(model, inputs, student)


@pytest.mark.usefixtures("large")
def test_what_was_refused_once_is_copied_from_then_on() -> None:
    model = Teacher(in_place, late=4)
    base = torch.optim.SGD(model.student.parameters(), lr=0.1)
    optimizer = SAM(base, model, rho=0.3)
    for x in inputs:
        step(optimizer, model, x)
    # Nobody looks in steps 5 and 6, of which the first finds it out.
    with pytest.raises(RuntimeError, match="changes the parameter"):
        step(optimizer, model, inputs[0])
    assert_as_on_copies_after(optimizer, model)


@pytest.mark.usefixtures("large")
def test_what_changed_in_a_step_of_one_pass_is_known_in_the_next() -> None:
    model = Teacher(by_data, late=3)
    base = torch.optim.SGD(model.student.parameters(), lr=0.1)
    # Steps 1 to 4 take one pass; nobody looks in step 5, which takes two.
    optimizer = late_sam(base, model, steps=8, share=0.5, rho=0.3)
    for x in inputs:
        step(optimizer, model, x)
    assert_as_on_copies_after(optimizer, model)


@pytest.mark.usefixtures("large")
def test_what_changes_at_w_eps_alone_is_known_from_then_on() -> None:
    model = copied_teacher(lambda t, s: None if torch.equal(t, s) else by_data(t, s))
    base = torch.optim.SGD(model.student.parameters(), lr=0.0)
    optimizer = SAM(base, model, rho=0.3)
    before = snapshot(model.teacher)
    for x in inputs[:3]:
        step(optimizer, model, x)
        assert_same(snapshot(model.teacher), before)


@pytest.mark.usefixtures("large")
def test_a_change_of_which_there_is_no_copy_is_refused() -> None:
    model = Teacher(in_place, late=2)
    base = torch.optim.SGD(model.student.parameters(), lr=0.1)
    optimizer = SAM(base, model, rho=0.3)
    for x in inputs[:2]:
        step(optimizer, model, x)
    before = snapshot(model.student)
    with pytest.raises(
        RuntimeError, match=r"changes the parameter 'teacher\.bias'.*buffer"
    ):
        step(optimizer, model, inputs[2])
    assert_same(snapshot(model.student), before)
    assert model.n == 2
    # It is known from now on.
    assert_as_on_copies_after(optimizer, model)


def assert_as_on_copies_after(optimizer: SAM, model: Any) -> None:
    t = model.teacher.weight.detach().clone()
    s = model.student.weight.detach().clone()
    step(optimizer, model, inputs[3])
    torch.testing.assert_close(model.teacher.weight, 0.5 * t + 0.5 * s)


def step(optimizer: SAM, model: nn.Module, x: Tensor) -> None:
    for _ in optimizer.probes():
        model(x).square().mean().backward()
    optimizer.step()


@pytest.mark.usefixtures("large")
def test_large_frozen_parameters_are_copied_for_a_look_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied: list[int] = []

    class Noting(TensorCopy):
        def save(self, tensors: Any) -> None:
            copied.append(len(tensors))
            super().save(tensors)

    for module in (_frozen, _tensor_copy):
        monkeypatch.setattr(module, "TensorCopy", Noting)
    model = Teacher(lambda t, s: None)
    optimizer = SAM(torch.optim.SGD(model.student.parameters(), lr=0.1), model)
    per_step: list[bool] = []
    for k in range(8):
        copied.clear()
        step(optimizer, model, inputs[k % 4])
        per_step.append(sum(copied) > 0)
    assert per_step == [True, True, False, True, False, False, False, True]


@pytest.mark.usefixtures("large")
def test_a_look_copies_as_many_bytes_as_are_trained() -> None:
    teachers = [torch.zeros(n) for n in (8, 2, 4)]
    replay = FrozenReplay(lambda t: "a tensor")
    replay.begin(teachers, [torch.zeros(6)])
    teachers[1].data.add_(1)
    teachers[0].data.add_(1)
    replay.keep()
    replay.rewind()
    assert [t[0].item() for t in teachers] == [1, 0, 0]
    replay.finish()
    assert [t[0].item() for t in teachers] == [1, 1, 0]


def test_a_tensor_without_a_name_is_named_so(large: None) -> None:
    model: Any = nn.Linear(4, 2).double()
    model.table = torch.zeros(2, dtype=torch.float64)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    step(optimizer, model, inputs[0])
    step(optimizer, model, inputs[0])

    def note() -> None:
        model.table.add_(1)

    hook = model.register_forward_pre_hook(lambda *_: note())
    with pytest.raises(RuntimeError, match="changes a tensor, of shape"):
        step(optimizer, model, inputs[0])
    hook.remove()


def refusal(optimizer: SAM, model: nn.Module) -> str | None:
    """The message that five steps end with, if they are refused."""
    try:
        for _ in range(5):
            step(optimizer, model, inputs[0])
    except RuntimeError as error:
        return str(error)
    return None


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("first", [0, 1])
def test_a_view_of_a_trained_weight_moves_with_it(first: int) -> None:
    model: Any = nn.Linear(4, 2).double()
    model.alias = model.weight.detach()[first:]
    twin = nn.Linear(4, 2).double()
    twin.load_state_dict(model.state_dict())
    for each in (model, twin):
        optimizer = SAM(torch.optim.SGD(each.parameters(), lr=0.1), each)
        assert refusal(optimizer, each) is None
    assert torch.equal(model.weight, twin.weight)
    assert torch.equal(model.alias, twin.weight[first:])


class Graph(nn.Module):
    """Keeps the graph that it works on as an attribute, not as a buffer."""

    def __init__(self, graph: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2).double()
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        return self.layer((self.graph @ x.T).T)


SPARSE: dict[str, Callable[[Tensor], Tensor]] = {
    "coordinates": Tensor.to_sparse,
    "csr": Tensor.to_sparse_csr,
    "csc": Tensor.to_sparse_csc,
    "bsr": lambda t: t.to_sparse_bsr((2, 2)),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("always", [0, -1])
def test_a_sparse_attribute_stays(
    kind: str, always: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if always:
        monkeypatch.setattr(_frozen, "_ALWAYS", always)
    found: list[Tensor] = []
    for make in (SPARSE[kind], Tensor.clone):
        model = Graph(make(torch.eye(4).double()))
        optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.3)
        for k in range(5):
            step(optimizer, model, inputs[k % 2])
        found.append(model.layer.weight.detach())
    torch.testing.assert_close(*found)
