"""Lightning with several processes, and after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.ranks import Ranks
from tests.frameworks import by_hand
from tests.frameworks import lightning_host as host
from tests.frameworks.judge import run
from tests.frameworks.scenario import COLUMNS, Scenario, Trace
from tests.integrations import lightning_jobs as jobs

pytestmark = pytest.mark.everything


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (jobs.world, jobs.world_by_hand),
        (jobs.sharded, jobs.world_by_hand),
        (jobs.manual_with_mixin, by_hand.train),
    ],
)
def test_processes_train_as_by_hand(
    mine: Callable[[Scenario, int], Trace],
    theirs: Callable[[Scenario, int], Trace],
    accumulate: int,
    ranks: Ranks,
) -> None:
    of = Scenario(processes=2, accumulate=accumulate, dropout=0.0)
    found, wanted = run(mine, of, ranks), run(theirs, of, ranks)
    for name, t in wanted[0].state.items():
        assert torch.equal(found[0].state[name], t), name
    for name, t in found[1].state.items():
        # Buffers are those of each process; DDP broadcasts them before a pass.
        if "running" not in name:
            assert torch.equal(found[0].state[name], t), name


def checkpoint(module: Any, folder: Path) -> dict[str, Any]:
    module.trainer.save_checkpoint(folder / "end.ckpt")
    return torch.load(folder / "end.ckpt", weights_only=True)


def test_a_killed_training_resumes_in_mid_epoch(tmp_path: Path) -> None:
    module, at = "tests.integrations.lightning_jobs", tmp_path / "killed"
    died = subprocess.run([sys.executable, "-m", module, str(at)], check=False)
    assert died.returncode == -signal.SIGKILL
    of = replace(COLUMNS["resume"], stop=None)
    undisturbed = host.fit(host.Automatic(of), host.Watch(), 0, str(tmp_path))
    resumed = host.fit(host.Automatic(of), host.Watch(), 0, str(at), at / "last.ckpt")
    a, b = checkpoint(undisturbed, tmp_path), checkpoint(resumed, at)
    for part in "state_dict", "optimizer_states", "lr_schedulers":
        torch.testing.assert_close(a[part], b[part], rtol=0, atol=0)
    assert a["global_step"] == b["global_step"] == 12
    assert b["optimizer_states"][0]["param_groups"][0]["sam_step"] == 12
