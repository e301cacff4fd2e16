"""Flat-LoRA on peft's layers: what moves, how far, and that it comes back."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.utils.checkpoint import checkpoint

from flatmin import SAM
from flatmin.core import _adapted
from flatmin.optim import _frozen
from tests.methods.lora import (
    RHO,
    STEPS,
    adapted,
    data,
    flat,
    layer,
    loop,
    train,
    trainable,
    weights,
)
from tests.problems import (
    assert_same,
    assert_same_state,
    gradient,
    loss_of,
    tensors,
    untouched,
    without,
)


def moved(optimizer: SAM, model: nn.Module) -> dict[str, Tensor]:
    """How far each tensor is from where it was, in the only pass of a step."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found: list[dict[str, Tensor]] = []
    for _ in optimizer.probes():
        loss_of(model, data()).backward()
        here = model.named_parameters()
        found.append({name: p.detach() - before[name] for name, p in here})
    optimizer.zero_grad()
    [only] = found
    return {name: eps for name, eps in only.items() if eps.any()}


def at_half(model: nn.Module, **options: Any) -> SAM:
    """A Flat-LoRA in the middle of its training, where the noise is ``rho / 2``."""
    optimizer = flat(model, **options)
    for group in optimizer.param_groups:
        group["sam_step"] = STEPS // 2
    return optimizer


def test_the_frozen_weights_of_adapted_layers_move_and_nothing_else() -> None:
    model = adapted()
    names = {f"base_model.model.{name}.base_layer.weight" for name in "14"}
    assert moved(at_half(model), model).keys() == names


def test_the_noise_is_normal_with_the_deviation_of_each_row() -> None:
    model = adapted()
    optimizer, drawn = flat(model), list[Tensor]()
    own = layer(model)
    whole = own.get_base_layer().weight + own.get_delta_weight("default")
    sigma = RHO / math.sqrt(8) * whole.detach().norm(dim=1)
    for step in range(STEPS, STEPS + 200):
        optimizer.param_groups[0]["sam_step"] = step
        [first, _] = moved(optimizer, model).values()
        drawn.append(first / sigma[:, None])
    z = torch.stack(drawn)
    n = z.numel()
    assert z.mean().abs() < 4 / n**0.5
    assert z.var() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert torch.corrcoef(z[:2].flatten(1))[0, 1].abs() < 0.5


def test_the_layers_draw_differently() -> None:
    model = adapted(target_modules=["0", "1", "4"])
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    eps = list(moved(at_half(model), model).values())
    assert not torch.equal(eps[1][:3], eps[2])


def test_all_active_adapters_make_the_weight() -> None:
    model = adapted()
    model.add_adapter("more", adapted(lora_alpha=5).peft_config["default"])
    own = layer(model)
    alone, both = (
        _adapted.adapted(model, trainable(model))[0].row_norms()
        for names in ("default", ["default", "more"])
        if model.base_model.set_adapter(names) is None
    )
    w = own.get_base_layer().weight.detach()
    expected = w + own.get_delta_weight("default").detach()
    torch.testing.assert_close(alone, expected.norm(dim=1))
    expected = expected + own.get_delta_weight("more").detach()
    torch.testing.assert_close(both, expected.norm(dim=1))


def test_the_row_norms_do_not_depend_on_autocast() -> None:
    model = adapted(torch.float32)
    [first, _] = _adapted.adapted(model, trainable(model))
    expected = first.row_norms()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(first.row_norms(), expected)


def test_a_group_without_a_radius_keeps_its_layer() -> None:
    model = adapted()
    first = [p for p in layer(model, "1").parameters() if p.requires_grad]
    rest = [p for p in layer(model, "4").parameters() if p.requires_grad]
    optimizer = at_half(model)
    optimizer.param_groups[0]["params"] = first
    optimizer.add_param_group({"params": rest, "sam_rho": 0.0})
    assert moved(optimizer, model).keys() == {"base_model.model.1.base_layer.weight"}


def test_the_length_of_eps_is_that_of_the_noise() -> None:
    model = adapted()
    optimizer = at_half(model, track=True)
    eps = torch.cat([e.flatten() for e in moved(optimizer, model).values()])
    statistics = optimizer.statistics
    torch.testing.assert_close(statistics.eps_norm, eps.norm())
    torch.testing.assert_close(statistics.grad_norm, eps.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_weights_return_bit_for_bit_in_their_memory(dtype: torch.dtype) -> None:
    model = adapted(dtype)
    optimizer = flat(model, rho=2.0)
    for _ in range(6):
        with untouched(model):
            loop(optimizer, model, data(dtype))
        optimizer.step()


class Stopped(Exception):
    """An error in the loop body."""


def leave_by_an_error(optimizer: SAM) -> None:
    for _ in optimizer.probes():
        raise Stopped


def leave_by_break(optimizer: SAM) -> None:
    for _ in optimizer.probes():
        break
    raise Stopped


@pytest.mark.parametrize("leave", [leave_by_an_error, leave_by_break])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_weights_return_however_the_loop_is_left(
    leave: Any, dtype: torch.dtype
) -> None:
    model = adapted(dtype)
    optimizer = at_half(model, rho=2.0)
    with untouched(model), pytest.raises(Stopped):
        leave(optimizer)
    train(optimizer, model, 1, data(dtype))


def test_narrow_weights_move_though_the_noise_is_finer_than_their_steps() -> None:
    model = adapted(torch.bfloat16)
    optimizer, w = at_half(model, rho=5e-4), weights(model)[0]
    before, away = w.detach().clone(), torch.zeros(w.shape, dtype=torch.bool)
    for step in range(STEPS, STEPS + 300):
        optimizer.param_groups[0]["sam_step"] = step
        for _ in optimizer.probes():
            away |= w.detach() != before
            loss_of(model, data(torch.bfloat16)).backward()
        optimizer.zero_grad()
    # Rounded to the nearest, most of these weights would never move.
    assert away.all()


def test_a_checkpoint_continues_bit_for_bit(tmp_path: Path) -> None:
    model, path = adapted(), tmp_path / "checkpoint.pt"
    optimizer = flat(model)
    train(optimizer, model, 4)
    torch.save({"model": model.state_dict(), "sam": optimizer.state_dict()}, path)
    train(optimizer, model, 4)
    twin = adapted()
    other = flat(twin)
    content = torch.load(path, weights_only=True)
    twin.load_state_dict(content["model"])
    other.load_state_dict(content["sam"])
    train(other, twin, 4)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


def test_without_a_radius_it_is_the_base_bit_for_bit() -> None:
    model, twin = adapted(), adapted()
    train(flat(model, rho=0.0), model, 4)
    base = torch.optim.SGD(trainable(twin), lr=0.1, momentum=0.9)
    for step in range(4):
        torch.manual_seed(step)
        base.zero_grad()
        loss_of(twin, data()).backward()
        base.step()
    assert_same(tensors(model), tensors(twin))


def test_the_first_step_is_the_base_s() -> None:
    model = adapted()
    optimizer = flat(model)
    assert moved(optimizer, model) == {}
    assert optimizer.unperturbed_steps == 0


def test_a_step_takes_one_pass_and_leaves_the_random_streams() -> None:
    model, twin = adapted(), adapted()
    optimizer = at_half(model)
    loop(optimizer, model)
    stream = torch.get_rng_state()
    assert optimizer.statistics.passes == 1
    torch.manual_seed(STEPS // 2)
    loss_of(twin, data())
    assert torch.equal(stream, torch.get_rng_state())


def test_micro_batches_share_the_noise_of_their_step() -> None:
    model = adapted(lora_dropout=0.0).eval()
    optimizer, seen = at_half(model), list[list[Tensor]]()
    x, y = data()
    for part in (slice(0, 6), slice(6, 12)):
        for _ in optimizer.probes(accumulate=True):
            seen.append([w.detach().clone() for w in weights(model)])
            (loss_of(model, (x[part], y[part])) / 2).backward()
    accumulated = [gradient(p).clone() for p in trainable(model)]
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    optimizer.zero_grad()
    loop(optimizer, model)
    for p, g in zip(trainable(model), accumulated, strict=True):
        torch.testing.assert_close(gradient(p), g)


def test_a_loss_scale_changes_nothing_and_an_overflow_skips_the_step() -> None:
    model, twin = adapted(), adapted()
    optimizer, other = flat(model), flat(twin)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    for bang in (1.0, 1.0, math.inf, 1.0):
        step = optimizer.param_groups[0]["sam_step"]
        torch.manual_seed(step)
        with untouched(model):
            for _ in optimizer.probes():
                scaler.scale(loss_of(model, data()) * bang).backward()
        scaler.step(optimizer)
        scaler.update()
    train(other, twin, 3)
    for p, q in zip(trainable(model), trainable(twin), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_activation_checkpointing_recomputes_at_the_same_point() -> None:
    model, twin = adapted(), adapted()
    train(flat(model), model, 4)
    optimizer = flat(twin)
    x, y = data()
    for step in range(4):
        torch.manual_seed(step)
        for _ in optimizer.probes():
            out: Any = checkpoint(twin, x, use_reentrant=False)
            nn.functional.cross_entropy(out, y).backward()
        optimizer.step()
    assert_same(tensors(model), tensors(twin))


def test_weights_too_large_to_be_copied_in_every_step_may_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_frozen, "_ALWAYS", 0)
    model, twin = adapted(), adapted()
    with without(RuntimeError, "taken for a change by the forward pass"):
        train(flat(model), model, 7)
    train(flat(twin, protect_buffers=False), twin, 7)
    assert_same(tensors(model), tensors(twin))


def test_a_forward_pass_that_changes_a_moved_weight_is_refused() -> None:
    model = adapted()
    optimizer, own = at_half(model), layer(model).get_base_layer()

    def shrink(*_: Any) -> None:
        with torch.no_grad():
            own.weight.mul_(0.5)

    own.register_forward_pre_hook(shrink)
    said = r"changes the parameter 'base_model\.model\.1\.base_layer\.weight' in place"
    with pytest.raises(RuntimeError, match=said):
        loop(optimizer, model)


def test_the_first_pass_can_be_made_twice() -> None:
    model, twin = adapted(), adapted()
    train(flat(model, check="replay"), model, 3)
    train(flat(twin), twin, 3)
    assert_same(tensors(model), tensors(twin))


def test_a_copy_goes_on_with_weights_of_its_own() -> None:
    model = adapted()
    optimizer = flat(model)
    train(optimizer, model, 3)
    twin, other = copy.deepcopy((model, optimizer))
    train(optimizer, model, 3)
    train(other, twin, 3)
    assert_same(tensors(model), tensors(twin))
