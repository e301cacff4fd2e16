"""Buffers and weights of every kind start each pass alike and end as after one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization as tq
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map

from flatmin import SAM
from flatmin.optim._tensor_copy import TensorCopy, mark, parts
from tests.optim.kept import assert_as_on_copies
from tests.problems import OneProcess, assert_same, snapshot

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*must run observer:UserWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min:UserWarning"),
]


class Holding(nn.Module):
    """Scales its input by what ``change`` makes of the buffer ``b``."""

    b: Any

    def __init__(self, b: Tensor, change: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.lift, self.head = nn.Linear(4, 5), nn.Linear(5, 2)
        self.register_buffer("b", b)
        self.change = change
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.lift(x))
        return self.head(y * self.change(self, y.detach().mean(0)))


def grows(m: Any, mean: Tensor) -> Tensor:
    n = len(m.b)
    m.b.resize_(n + 1).fill_(1.0 + n)
    return m.b.sum()


def becomes_double(m: Any, mean: Tensor) -> Tensor:
    wide = m.b.dtype == torch.float64
    m.b.data = torch.ones(3, dtype=torch.float64)
    return torch.tensor(2.0 if wide else 1.0)


def sparse(m: Any, mean: Tensor) -> Tensor:
    m.b.mul_(2)
    return m.b.to_dense()[0]


def complex_(m: Any, mean: Tensor) -> Tensor:
    m.b.mul_(1j)
    return 1 + m.b.real


def inferred(m: Any, mean: Tensor) -> Tensor:
    with torch.inference_mode():
        m.b.add_(1.0)
    return m.b.clone()


def adds(m: Any, mean: Tensor) -> Tensor:
    m.b.add_(mean)
    return m.b.clone()


def stays(m: Any, mean: Tensor) -> Tensor:
    return mean


def made(build: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def inside() -> Tensor:
        with torch.inference_mode():
            return build()

    return inside


def five() -> Tensor:
    return torch.ones(5, dtype=torch.float64)


CASES: dict[str, tuple[Callable[[], Tensor], Any]] = {
    "grows": (lambda: torch.zeros(0), grows),
    "empty": (lambda: torch.zeros(0, 3), stays),
    "sparse": (lambda: torch.eye(5, dtype=torch.float64).to_sparse(), sparse),
    "csr": (lambda: torch.eye(5, dtype=torch.float64).to_sparse_csr(), stays),
    "complex": (lambda: torch.ones(5, dtype=torch.complex128), complex_),
    "view": (lambda: torch.ones(5, 2, dtype=torch.float64).T[0], adds),
    "meta": (lambda: torch.ones(5, device="meta"), stays),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_buffer_is_left_as_one_pass_leaves_it(case: str) -> None:
    torch.manual_seed(1)
    build, change = CASES[case]
    model = Holding(build(), change)
    if case in ("meta", "csr"):
        run(model)
    else:
        assert_as_on_copies(model, [torch.randn(6, 4).double() for _ in range(3)])


def run(model: nn.Module, n: int = 1) -> None:
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.3)
    x = torch.randn(6, 4, dtype=torch.float64)
    for _ in range(n):
        for _ in optimizer.probes():
            model(x).square().mean().backward()
        optimizer.step()


def test_a_buffer_that_shrinks_stays_in_its_memory() -> None:
    def shrinks(m: Any, y: Tensor) -> Tensor:
        m.b.resize_(2)
        return m.b.sum() * 0 + 1

    model = Holding(torch.ones(4), shrinks)
    place = model.b.data_ptr()
    run(model, 2)
    assert len(model.b) == 2
    assert model.b.data_ptr() == place


def test_a_buffer_that_changes_its_dtype_changes_it_once() -> None:
    seen: list[torch.dtype] = []
    model = Holding(torch.ones(3, dtype=torch.float64), becomes_double)
    model.b = torch.ones(3)
    model.lift.register_forward_hook(lambda *_: seen.append(model.b.dtype))
    run(model)
    assert seen == [torch.float32, torch.float32]
    assert model.b.dtype == torch.float64


def test_a_buffer_made_in_inference_mode_is_rewound() -> None:
    model = Holding(five(), inferred)
    model.b = made(five)()
    run(model, 2)
    assert model.b.tolist() == [3.0] * 5


def test_a_tied_buffer_is_changed_once() -> None:
    model = Holding(five(), adds)
    model.register_buffer("twin", model.b)
    x = torch.randn(6, 4, dtype=torch.float64)
    assert_as_on_copies(model, [x, x])
    assert model.twin is model.b


def test_quantization_aware_training_is_sam_by_hand() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        tq.QuantStub(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), tq.DeQuantStub()
    )
    model.qconfig = tq.get_default_qat_qconfig("fbgemm")
    tq.prepare_qat(model.train(), inplace=True)
    assert_as_on_copies(model, [torch.randn(6, 4) for _ in range(3)], places=4)


class Pair(Tensor):
    """A tensor made of two halves, as quantized weights are made of their parts."""

    @staticmethod
    def __new__(cls, a: Tensor, b: Tensor) -> Pair:
        return Tensor._make_wrapper_subclass(cls, (2, *a.shape), dtype=a.dtype)

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["a", "b"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, *_: Any) -> Pair:
        return Pair(inner["a"], inner["b"])

    handled: ClassVar[list[str]] = ["aten.detach.default"]

    @classmethod
    def __torch_dispatch__(
        cls, f: Any, types: Any, args: Any, kwargs: Any = None
    ) -> Any:
        name = str(f)
        if name in cls.handled:
            return Pair(args[0].a, args[0].b)
        if name == "aten.add_.Tensor":
            half = args[1] + torch.rand(()) * 1e-3
            args[0].a.add_(half[0])
            args[0].b.add_(half[1])
            return args[0]
        whole = tree_map(joined, args)
        if name in ("aten.empty_like.default", "aten.copy_.default"):
            raise NotImplementedError(name)
        return f(*whole, **(kwargs or {}))


def joined(t: Any) -> Any:
    return torch.stack([t.a, t.b]) if isinstance(t, Pair) else t


class InParts(nn.Module):
    """A layer whose weight is a `Pair`."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(Pair(torch.arange(3.0), torch.ones(3)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.mul(x, self.w)


def perturbed(model: InParts, step: int) -> Tensor:
    """The first part of the weight at ``w + eps`` of a step."""
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.0), model, rho=0.5)
    optimizer.param_groups[0]["sam_step"] = step
    w: Any = model.w
    away, stream = w.a, torch.get_rng_state()
    for _ in optimizer.probes():
        away = w.a.clone()
        assert torch.equal(torch.get_rng_state(), stream)
        model(torch.ones(2, 3)).square().sum().backward()
    return away


def test_a_weight_made_of_parts_comes_back_bit_for_bit() -> None:
    model = InParts()
    w: Any = model.w
    before, stream = [w.a.clone(), w.b.clone()], torch.get_rng_state()
    assert not torch.equal(perturbed(model, 0), before[0])
    assert torch.equal(w.a, before[0])
    assert torch.equal(w.b, before[1])
    assert torch.equal(stream, torch.get_rng_state())


def test_a_weight_made_of_parts_draws_by_the_number_of_the_step() -> None:
    moved = []
    for seed, step in ((1, 4), (2, 4), (2, 5)):
        torch.manual_seed(seed)
        moved.append(perturbed(InParts(), step))
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[1], moved[2])


def test_a_tensor_of_autograd_and_an_expanded_one_are_kept_by_reference() -> None:
    leaf = torch.ones(3, requires_grad=True)
    assert parts(leaf) == [leaf]
    assert parts(leaf * 2) == []
    assert parts(torch.ones(1).expand(3)) == []
    assert parts(torch.ones(1, 3).expand(1, 3)) != []
    assert parts(nn.UninitializedParameter()) == []


def test_a_parameter_that_grew_gets_its_size_back() -> None:
    p = nn.Parameter(torch.ones(2))
    kept = TensorCopy()
    kept.save([p])
    p.data = torch.zeros(3)
    kept.load()
    assert p.tolist() == [1, 1]


def test_marks_tell_of_changes() -> None:
    t = torch.ones(3)
    before = mark(t)
    t.add_(1)
    assert mark(t) != before
    before = mark(t)
    t.data = torch.ones(3)
    assert mark(t) != before
    assert mark(made(five)()) == mark(nn.UninitializedParameter())
    assert mark(torch.eye(2).to_sparse())[1] == 0


def test_a_wrapper_keeps_its_own_books() -> None:
    model = nn.Sequential(Holding(five(), adds))
    with OneProcess():
        replica = DistributedDataParallel(model)
        assert_books_are_left_alone(replica)
    assert_books_are_left_alone(nn.DataParallel(model))


def test_what_a_wrapper_registers_is_there_once() -> None:
    model = nn.DataParallel(Holding(five(), stays))

    def register(*_: Any) -> None:
        first = "seen" not in model._buffers
        model.register_buffer("seen", torch.tensor(first))

    model.register_forward_hook(register)
    run(model)
    assert model.seen


def assert_books_are_left_alone(wrapped: Any) -> None:
    base = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    wrapped.books = 0
    for _ in SAM(base, wrapped).probes():
        wrapped.books += 1
        wrapped(torch.ones(2, 4, dtype=torch.float64)).square().mean().backward()
    assert wrapped.books == 2


def test_an_unchanged_model_keeps_its_tensors() -> None:
    model = Holding(five(), stays)
    before, places = snapshot(model), model.b.data_ptr()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.0), model)
    for _ in optimizer.probes():
        model(torch.ones(2, 4, dtype=torch.float64)).square().mean().backward()
    assert_same(snapshot(model), before)
    assert model.b.data_ptr() == places
    assert math.isfinite(model.b.sum())
