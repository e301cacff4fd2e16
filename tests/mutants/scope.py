"""Defects of several processes, and the test that each of them must turn red."""

from tests.mutants.mutant import Mutant

SHARED = "core/_scope.py"
ENGINE = "optim/_engine.py"
SAM = "optim/_sam.py"

DDP = "tests/distributed/test_ddp.py::"
SCOPE = "tests/optim/test_scope.py::"

SHARDS = "core/_shards.py"
METRIC = "core/_metric.py"
SHARDED = "tests/distributed/test_shards.py::"
HYBRID = "tests/distributed/test_hybrid.py::"
OVERFLOW = "tests/distributed/test_overflow.py::"
UNUSED = "tests/distributed/test_unused.py::"
COLLECTIVES = "tests/distributed/test_collectives.py::"

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
        "copies of a shard counted twice",
        SHARDS,
        "if not placement.is_replicate()",
        "if placement is not None",
        f"{SHARDED}test_sharded_training_is_that_of_one_process[dtype0-1e-12-copied]",
    ),
    Mutant(
        "a shard that looks for overflows by itself",
        METRIC,
        "ok = (norm > 0) & norm.isfinite() & scale.to(narrow).isfinite()",
        "ok = ts.norm(x).isfinite()",
        f"{OVERFLOW}test_a_bad_entry_of_the_ascent_in_one_shard"
        "_makes_a_plain_step_everywhere[2.0-inf-layers-1]",
    ),
    Mutant(
        "a gradient that others of the group have, taken for none",
        SHARED,
        "None if v_i is None and shares[i] == 0 else mean",
        "None if v_i is None else mean",
        f"{UNUSED}test_parameters_may_be_left_out[one rank-group]",
    ),
    Mutant(
        "averaging in the ascent pass of a replica",
        SHARED,
        "            stack.enter_context(replica.no_sync())\n",
        "            stack.enter_context(nullcontext())\n",
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
        "the mean of a group over the whole world",
        SHARED,
        "flat /= dist.get_world_size(group)",
        "flat /= dist.get_world_size()",
        f"{HYBRID}test_the_norm_is_that_of_the_mean_gradient_of_the_group",
    ),
    Mutant(
        "the mean of a group in the digits of bfloat16",
        SHARED,
        "if double else torch.float32",
        "if double else torch.bfloat16",
        f"{DDP}test_in_float32_the_difference_is_one_of_rounding[group-10]",
    ),
    Mutant(
        "a replica that waits for the others",
        SHARED,
        '        """``g`` as it is."""\n',
        "        dist.barrier()\n",
        f"{COLLECTIVES}test_a_replica_climbs_without_any_collective",
    ),
    Mutant(
        "bucket views that the next pass overwrites",
        ENGINE,
        "        if self._views:\n",
        "        if False:\n",
        f"{DDP}test_accumulating_loops_are_m_sam_within_each_rank[True]",
    ),
    Mutant(
        "accumulating inside no_sync",
        "optim/_checks.py",
        "if not all(replica.require_backward_grad_sync for replica in replicas(model)):",
        "if False:",
        f"{SCOPE}test_an_accumulating_loop_inside_no_sync_is_refused",
    ),
]
