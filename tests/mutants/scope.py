"""Defects of several processes, and the test that each of them must turn red."""

from tests.mutants.mutant import Mutant

SHARED = "core/_scope.py"
ENGINE = "optim/_engine.py"
SAM = "optim/_sam.py"

DDP = "tests/distributed/test_ddp.py::"
SCOPE = "tests/optim/test_scope.py::"

SHARDS = "core/_shards.py"
SHARDED = "tests/distributed/test_shards.py::"

DISTRIBUTED = [
    Mutant(
        "the norm of a shard instead of the whole",
        SHARDS,
        "                dist.all_reduce(value, op, group)\n",
        "                pass\n",
        f"{SHARDED}test_sharded_training_is_that_of_one_process[dtype0-1e-12-layers]",
    ),
    Mutant(
        "the largest entry of a shard instead of the whole",
        SHARDS,
        "for i in at]), dist.ReduceOp.MAX",
        "for i in at]), dist.ReduceOp.SUM",
        f"{SHARDED}test_the_norm_is_that_of_the_whole_for_every_p[1.0-layers]",
    ),
    Mutant(
        "averaging in the ascent pass of a replica",
        SHARED,
        "        return model.no_sync()\n",
        "        return nullcontext()\n",
        f"{DDP}test_only_the_world_averages_in_the_ascent_pass[replica-1]",
    ),
    Mutant(
        "a group that does not communicate",
        SHARED,
        "    dist.all_reduce(flat, group=group)\n",
        "",
        f"{DDP}test_a_common_perturbation_is_that_of_one_process[group]",
    ),
    Mutant(
        "bucket views that the next pass overwrites",
        ENGINE,
        'if getattr(self._model, "gradient_as_bucket_view", False):',
        "if False:",
        f"{DDP}test_accumulating_loops_are_m_sam_within_each_rank[True]",
    ),
    Mutant(
        "accumulating inside no_sync",
        "optim/_checks.py",
        'if not getattr(model, "require_backward_grad_sync", True):',
        "if False:",
        f"{SCOPE}test_an_accumulating_loop_inside_no_sync_is_refused",
    ),
]
