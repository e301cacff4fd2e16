"""The Trainer with SAM, where the matrix does not look: losses of language models."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Seq2SeqTrainer, Trainer, TrainerCallback

import flatmin
from flatmin import SAM
from flatmin.integrations.transformers import (
    SharedPerturbationTrainer,
    SharpnessAwareTrainer,
)
from tests.distributed.ranks import Ranks
from tests.frameworks.judge import BITWISE
from tests.integrations import jobs
from tests.integrations.language import (
    LR,
    RHO,
    logged,
    micro_batches,
    model_of,
    trainer_of,
    weights,
)

TWO = {"gradient_accumulation_steps": 2}


def counter() -> Any:
    """How many words of batches have a label, as the Trainer counts them."""
    stock, cpu = trainer_of(Trainer), torch.device("cpu")
    return lambda *batches: stock.get_batch_samples(iter(batches), len(batches), cpu)[1]


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """As the Trainer groups parameters, all without decay."""
    decayed = set(trainer_of(model=model).get_decay_parameter_names(model))
    named = dict(model.named_parameters())
    parts = [[n for n in named if (n in decayed) == wanted] for wanted in (True, False)]
    return [{"params": [named[n] for n in part]} for part in parts]


def by_hand(method: Any, *, shared: bool) -> tuple[nn.Module, list[float], list[float]]:
    """Two micro-batches per step, then the one that is left; dropout and all.

    Returns:
        The model, and of each step the loss at w and the sharpness.
    """
    model = model_of()
    optimizer = method(torch.optim.SGD(groups(model), lr=LR), model, rho=RHO)
    model.train()
    losses, sharpness = [], []
    count = counter()
    torch.manual_seed(42)
    first, second, third = micro_batches()
    for step in ([first, second], [third]):
        loops = [step] if shared else [[batch] for batch in step]
        loss, rise = 0.0, 0.0
        for batches in loops:
            loss += passes(optimizer, model, batches, step, count, more=not shared)
            rise += 0 if optimizer.sharpness is None else float(optimizer.sharpness)
        losses.append(loss)
        sharpness.append(rise)
        optimizer.step()
        optimizer.zero_grad()
    return model, losses, sharpness


def passes(
    optimizer: SAM,
    model: nn.Module,
    batches: list[dict[str, Tensor]],
    step: list[dict[str, Tensor]],
    count: Any,
    *,
    more: bool,
) -> float:
    at_w: list[float] = []
    for probe in optimizer.probes(accumulate=more):
        losses = []
        for batch in batches:
            words, labels = probe.take(batch["input_ids"], batch["labels"])
            part = {"input_ids": words, "labels": labels}
            n = count(*step)
            if len(words) < len(batch["labels"]):
                n = n * (count(part) / count(batch))
            loss = model(**part, num_items_in_batch=n).loss
            loss.backward()
            losses.append(loss.detach())
        probe.loss = total = torch.stack(losses).sum()
        at_w.append(float(total))
    return at_w[0]


@pytest.mark.parametrize(
    "method", ["SAM", pytest.param("subset_sam", marks=pytest.mark.everything)]
)
@pytest.mark.parametrize("shared", [False, True])
def test_losses_are_divided_by_the_words_of_a_step(shared: bool, method: str) -> None:
    build = getattr(flatmin, method)
    kind = SharedPerturbationTrainer if shared else SharpnessAwareTrainer
    trainer = trainer_of(kind, arguments=TWO, method=build, rho=RHO)
    trainer.add_callback(Seeds())
    trainer.train()
    model, losses, sharpness = by_hand(build, shared=shared)
    assert weights(trainer.model) == weights(model)
    assert logged(trainer, "loss") == pytest.approx(losses, rel=1e-6)
    if method == "SAM":
        assert logged(trainer, "sharpness") == pytest.approx(sharpness, rel=1e-5)


class Seeds(TrainerCallback):
    """Sets the stream of dropout after the data loader has drawn from it."""

    def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        if state.global_step == 0:
            torch.manual_seed(42)


def test_sharpness_is_the_mean_over_the_steps_since_the_last_log() -> None:
    every = trainer_of(rho=RHO)
    every.train()
    once = trainer_of(rho=RHO, arguments={"logging_steps": 3})
    once.train()
    mean = sum(logged(every, "sharpness")) / 3
    assert logged(once, "sharpness") == [pytest.approx(mean, rel=1e-6)]


def test_a_built_sam_and_another_base_train_alike() -> None:
    model = model_of()
    sam = SAM(torch.optim.SGD(model.parameters(), lr=LR), model, rho=RHO)
    given = trainer_of(model=model, optimizers=(sam, None))
    given.train()
    other = model_of()
    base = torch.optim.SGD(other.parameters(), lr=LR)
    wrapped = trainer_of(model=other, optimizers=(base, None), rho=RHO)
    wrapped.train()
    assert weights(model) == weights(other)


def test_a_second_train_goes_on_with_the_same_sam() -> None:
    trainer = trainer_of(rho=RHO)
    trainer.train()
    trainer.train()
    sam = trainer.optimizer.optimizer
    assert isinstance(sam, SAM)
    assert not isinstance(sam.base, SAM)
    assert sam.param_groups[0]["sam_step"] == 6


def test_a_trainer_of_another_class_trains_alike() -> None:
    class FlatSeq2SeqTrainer(SharpnessAwareTrainer, Seq2SeqTrainer):
        pass

    one = trainer_of(rho=RHO)
    one.train()
    other = trainer_of(FlatSeq2SeqTrainer, rho=RHO)
    other.train()
    assert weights(one.model) == weights(other.model)


class Counts(SharpnessAwareTrainer):
    """Collects and logs within its loss, as some Trainers do."""

    calls: Counter[str]

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        self.calls["passes"] += 1
        assert self.probe is not None
        self.calls["batches"] += self.probe.index == 0
        self.log({"extra": 1.0})
        return super().compute_loss(*args, **kwargs)


def test_what_a_loss_collects_and_logs_is_not_doubled() -> None:
    Counts.calls = Counter()
    trainer = trainer_of(
        Counts, rho=RHO, arguments={"include_num_input_tokens_seen": "all"}
    )
    trainer.train()
    assert trainer.calls == {"passes": 6, "batches": 3}
    assert len(logged(trainer, "extra")) == 3
    assert trainer.state.num_input_tokens_seen == 3 * 4 * 6
    assert trainer.probe is None


def test_label_smoothing_sees_labels_in_every_pass() -> None:
    smooth = {"label_smoothing_factor": 0.1}
    trainer = trainer_of(rho=RHO, arguments=smooth)
    trainer.train()
    stock = trainer_of(Trainer, arguments=smooth)
    stock.train()
    assert logged(trainer, "loss")[0] == logged(stock, "loss")[0]
    assert logged(trainer, "loss")[1] != logged(stock, "loss")[1]


@pytest.mark.everything
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_checkpointed_activations_change_nothing(reentrant: bool) -> None:
    plain = trainer_of(rho=RHO)
    plain.train()
    settings = {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": reentrant},
    }
    saving = trainer_of(rho=RHO, arguments=settings)
    saving.train()
    assert saving.model.is_gradient_checkpointing
    assert weights(saving.model) == weights(plain.model)


def total(p: Tensor) -> float:
    return float(p.sum())


@pytest.mark.everything
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_an_adapter_is_trained_alone() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    model = get_peft_model(model_of(), config)
    trainer = trainer_of(model=model, rho=RHO)
    trainer.train()
    frozen = [p for p in model.parameters() if not p.requires_grad]
    before = [*model_of().parameters()]
    assert sorted(map(total, frozen)) == sorted(map(total, before))
    assert logged(trainer, "sharpness")[-1] > 0


def test_a_sam_beside_a_radius_is_refused() -> None:
    model = model_of()
    sam = SAM(torch.optim.SGD(model.parameters(), lr=LR), model)
    with pytest.raises(ValueError, match=r"optimizers=\(base, None\)"):
        trainer_of(model=model, optimizers=(sam, None), rho=RHO)


def test_an_optimizer_that_steps_in_the_backward_pass_is_refused() -> None:
    trainer = trainer_of(
        rho=RHO, optimizers=(torch.optim.SGD(model_of().parameters()), None)
    )
    trainer.args.optim = "adalomo"
    with pytest.raises(ValueError, match=r"adalomo.*backward pass"):
        trainer.create_optimizer()


def test_a_method_that_does_not_add_up_is_refused_or_shares() -> None:
    with pytest.raises(ValueError, match="Use SharedPerturbationTrainer"):
        trainer_of(arguments=TWO, method=flatmin.sampa).create_optimizer()
    shared = trainer_of(SharedPerturbationTrainer, arguments=TWO, method=flatmin.sampa)
    assert isinstance(shared.create_optimizer(), SAM)


def test_the_stock_trainer_says_what_to_write() -> None:
    model = model_of()
    sam = SAM(torch.optim.SGD(model.parameters(), lr=LR), model)
    trainer = trainer_of(Trainer, model, optimizers=(sam, None))
    with pytest.raises(
        RuntimeError, match=r"SharpnessAwareTrainer.*in place of Trainer"
    ):
        trainer.train()


@pytest.mark.everything
@pytest.mark.parametrize("scope", ["replica", "world"])
@pytest.mark.parametrize("shared", [False, True])
def test_replicas_accumulate_as_by_hand(shared: bool, scope: str, ranks: Ranks) -> None:
    assert ranks.run(jobs.verdict, shared, scope) == [BITWISE, BITWISE]


class ScheduleFree(torch.optim.SGD):
    """Has other weights in training, which it has to be told to take."""

    trains = False

    def train(self) -> None:
        self.trains = True

    def eval(self) -> None:
        self.trains = False

    def step(self, closure: Any = None) -> Any:
        assert self.trains
        return super().step(closure)


def test_a_schedule_free_base_is_told_to_train() -> None:
    found: list[Any] = []
    for kind in (ScheduleFree, torch.optim.SGD):
        model = model_of()
        base = kind(model.parameters(), lr=LR)
        trainer = trainer_of(model=model, optimizers=(base, None), rho=RHO)
        trainer.train()
        found.append(weights(model))
    assert found[0] == found[1]
