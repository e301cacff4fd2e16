"""Ways into and out of the Trainer with SAM: checkpoints of others, and refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer

import flatmin
from flatmin.integrations.transformers import SharpnessAwareTrainer
from tests.integrations.language import LR, RHO, micro_batches, model_of, trainer_of

pytestmark = pytest.mark.everything

SETTINGS = {
    "save_strategy": "steps",
    "save_steps": 1,
    "save_only_model": False,
}


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def still() -> nn.Module:
    """Without dropout, whose stream the Trainer sets anew."""
    model = model_of()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def momentum(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)


def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The sum over words that have a label, divided by their number as Trainers do."""
    stock, cpu = trainer_of(Trainer), torch.device("cpu")
    items = stock.get_batch_samples(iter([batch]), 1, cpu)[1]
    return model(**batch, num_items_in_batch=items).loss


def test_a_run_of_the_stock_trainer_goes_on_with_sam(tmp_path: Path) -> None:
    """A step of SGD with momentum, saved; then two of SAM, as in a loop by hand."""
    settings = {**SETTINGS, "max_steps": 3}
    model = still()
    stock = trainer_of(
        Trainer,
        model,
        {**settings, "max_steps": 1},
        optimizers=(momentum(model), None),
    )
    stock.args.output_dir = str(tmp_path)
    stock.train()
    model = still()
    resumed = trainer_of(
        SharpnessAwareTrainer,
        model,
        settings,
        rho=RHO,
        optimizers=(momentum(model), None),
    )
    resumed.args.output_dir = str(tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))

    model = still()
    base = momentum(model)
    first, *others = micro_batches()
    loss_of(model, first).backward()
    base.step()
    optimizer = flatmin.SAM(base, model, rho=RHO)
    base.zero_grad()
    for batch in others:
        for _ in optimizer.probes():
            loss_of(model, batch).backward()
        optimizer.step()
    assert resumed.state.global_step == 3
    assert resumed.optimizer.optimizer.param_groups[0]["sam_step"] == 2
    torch.testing.assert_close(flat(resumed.model), flat(model), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (flatmin.k_sam, "the loss of each example"),
        (flatmin.second_order_sam, "second derivatives"),
        (flatmin.part_sam, "the parts of the loss"),
    ],
)
def test_methods_that_the_trainer_cannot_answer_are_refused(
    method: object, says: str
) -> None:
    trainer = trainer_of(method=method, rho=RHO)
    with pytest.raises(ValueError, match=rf"needs {says}.*docs/loop\.md"):
        trainer.train()


def test_weights_that_deepspeed_shards_are_refused() -> None:
    model = model_of()
    for p in model.parameters():
        # What ZeRO-3 writes on a parameter whose weights it has cut.
        vars(p)["ds_id"] = SimpleNamespace()
    with pytest.raises(ValueError, match=r"DeepSpeed ZeRO-3.*fully_shard"):
        trainer_of(model=model, rho=RHO).create_optimizer()
