"""Defects of several processes, and the test that each of them must turn red."""

from tests.mutants.mutant import Mutant

SHARED = "core/_scope.py"
ENGINE = "optim/_engine.py"
SAM = "optim/_sam.py"

DDP = "tests/distributed/test_ddp.py::"
SCOPE = "tests/optim/test_scope.py::"

SHARDS = "core/_shards.py"
METRIC = "core/_metric.py"
RANKING = "core/_ranking.py"
SHARDED = "tests/distributed/test_shards.py::"
WHOLE = "tests/distributed/test_whole.py::"
HYBRID = "tests/distributed/test_hybrid.py::"
OVERFLOW = "tests/distributed/test_overflow.py::"
UNUSED = "tests/distributed/test_unused.py::"
WRAPPED = "tests/distributed/test_wrapped.py::"
FABRIC = "tests/distributed/test_fabric.py::"
HELD = "tests/distributed/test_held.py::"
COLLECTIVES = "tests/distributed/test_collectives.py::"

DISTRIBUTED = [
    Mutant(
        "replicas whose buffers drift apart, where none of the passes averages",
        SHARED,
        "        replica.require_forward_param_sync = True\n",
        "        pass\n",
        "tests/distributed/test_sync_norm.py::"
        "test_every_step_begins_with_the_statistics_of_the_first_rank[gsam]",
    ),
    Mutant(
        "the norm of a shard instead of the whole",
        SHARDS,
        "        dist.all_reduce(x, op, group)\n",
        "        pass\n",
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
        "a shard that ranks its entries among its own",
        RANKING,
        "return reduced(bits.bincount(minlength=1 << _BITS), groups)",
        "return bits.bincount(minlength=1 << _BITS)",
        f"{HYBRID}test_shards_are_ranked_as_one[1000000000-0.3-four-shards]",
    ),
    Mutant(
        "equal entries taken by every shard",
        RANKING,
        "before = sum(ties[: _place(groups)])",
        "before = 0",
        f"{HYBRID}test_shards_are_ranked_as_one[4-0.3-four-shards]",
    ),
    Mutant(
        "outliers by the mean of a shard",
        "core/filters.py",
        "mean = reduced(x.sum(), groups) / n",
        "mean = x.mean()",
        f"{HYBRID}test_outliers_of_shards_are_those_of_the_whole"
        "[1000000000-0.5-hybrid-root]",
    ),
    Mutant(
        "a shard without outliers that moves whole",
        "core/filters.py",
        "reduced(top.sum(), groups) > 0",
        "top.any()",
        f"{HYBRID}test_outliers_of_shards_are_those_of_the_whole"
        "[1000000000-0.95-hybrid-root]",
    ),
    Mutant(
        "equal entries taken once for every kind of shard",
        RANKING,
        "missing -= min(missing, sum(ties))",
        "pass",
        f"{HYBRID}test_shards_are_ranked_as_one[1-0.3-one-tensor]",
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
        "        if self._reused:\n",
        "        if False:\n",
        f"{DDP}test_accumulating_loops_are_m_sam_within_each_rank[True]",
    ),
    Mutant(
        "accumulating inside no_sync",
        "optim/_checks.py",
        "if not all(part.require_backward_grad_sync for part in replicas(model)):",
        "if False:",
        f"{SCOPE}test_an_accumulating_loop_inside_no_sync_is_refused",
    ),
    Mutant(
        "replicas that a wrapper hides",
        SHARED,
        "[m for m in model.modules() if isinstance(m, DistributedDataParallel)]",
        "[m for m in [model] if isinstance(m, DistributedDataParallel)]",
        f"{FABRIC}test_a_loop_with_fabric_is_that_without[replica]",
    ),
    Mutant(
        "silence for the first of several replicas",
        SHARED,
        "        for replica in replicas(model):\n",
        "        for replica in replicas(model)[:1]:\n",
        f"{WRAPPED}test_two_averaged_parts_are_averaged_as_one[replica]",
    ),
    Mutant(
        "an average over what belongs to one process",
        SHARED,
        "enumerate(w) if id(p) in inside]",
        "enumerate(w) if inside]",
        f"{WRAPPED}test_what_is_outside_stays_with_its_process[widths0]",
    ),
    Mutant(
        "parts averaged over different processes",
        "optim/_checks.py",
        "for group in groups}) > 1:",
        "for group in groups}) > 2:",
        f"{WRAPPED}test_parts_averaged_over_different_processes_are_refused",
    ),
    Mutant(
        "a static graph that a wrapper hides",
        "optim/_checks.py",
        "any(replica.static_graph for replica in replicated)",
        'getattr(model, "static_graph", False)',
        f"{WRAPPED}test_a_static_graph_is_seen_through_a_wrapper",
    ),
    Mutant(
        "bucket views that a wrapper hides",
        ENGINE,
        "any(part.gradient_as_bucket_view for part in replicas(model))",
        'getattr(model, "gradient_as_bucket_view", False)',
        f"{WRAPPED}test_bucket_views_are_seen_through_a_wrapper",
    ),
    Mutant(
        "progress that a wrapper of the optimizer keeps for itself",
        SAM,
        "            wait(progress, step.w)\n",
        "            self._progress = type(progress)()\n"
        "            wait(self._progress, step.w)\n",
        "tests/optim/test_fabric.py::"
        "test_a_loop_over_what_fabric_returns_is_one_over_sam",
    ),
    Mutant(
        "weights that FSDP2 keeps whole stay behind when shards move",
        "optim/_engine.py",
        "        if self._sharded:\n            reshard(self._model)\n",
        "        pass\n",
        f"{WHOLE}test_weights_that_stay_whole_between_micro_batches_still_move[root]",
    ),
    Mutant(
        "a base of weights that FSDP2 has let go of",
        "optim/_bases.py",
        "    if not all(p.untyped_storage().nbytes() for p in plain):\n",
        "    if False:\n",
        f"{WHOLE}test_whole_weights_are_not_taken_for_a_models_own",
    ),
    Mutant(
        "whole weights of FSDP2 taken for a model that a measure may move",
        "diagnostics/_guards.py",
        "    reshard(inner)\n",
        "",
        f"{WHOLE}test_whole_weights_are_not_taken_for_a_models_own",
    ),
    Mutant(
        "an average of weights that FSDP2 keeps whole",
        "averaging/_tensors.py",
        "    reshard(model)\n",
        "",
        "tests/distributed/test_averages.py::"
        "test_an_average_is_that_of_one_process[root]",
    ),
    Mutant(
        "groups over parts of the parameters taken for the base's",
        "optim/_states.py",
        "if apart and list(map(_members, theirs)) == list(map(_members, ours)):",
        "if apart and len(theirs) == len(ours):",
        f"{HELD}test_an_optimizer_over_parts_of_the_parameters_loads_and_goes_on[sam]",
    ),
    Mutant(
        "values of one shard that decide for one process",
        SHARDS,
        "found |= bool(reduced(flag, groups, dist.ReduceOp.MAX))",
        "found |= bool(flag)",
        f"{HELD}test_a_step_of_the_base_that_a_scaler_skips_is_skipped_everywhere[layers]",
    ),
    Mutant(
        "parameters averaged that DDP was told to ignore",
        SHARED,
        "named if name not in replica.parameters_to_ignore]",
        "named]",
        f"{HELD}test_what_ddp_was_told_to_ignore_stays_with_its_process[gsam-widths0]",
    ),
    Mutant(
        "a hook that is not called",
        SHARED,
        "    _check_hooks(averaged)\n",
        "",
        f"{HELD}test_a_hook_that_does_not_average_is_refused_where_it_is_not_called",
    ),
    Mutant(
        "a pass that ends with gradients which FSDP2 holds back",
        ENGINE,
        '        self._check_reduced("a pass of the probes() loop ended")\n',
        "",
        f"{HELD}test_a_pass_whose_gradient_is_held_back_is_refused[True]",
    ),
    Mutant(
        "gradients that FSDP2 holds after a loop that was left",
        ENGINE,
        "        except BaseException:\n            self.drop_unreduced()\n",
        "        except BaseException:\n",
        f"{HELD}test_what_a_loop_left_in_fsdp_is_dropped[raise]",
    ),
    Mutant(
        "a hook of its own in every pass",
        ENGINE,
        "if not self._met_all or has_wrapper(self._model):",
        "if True:",
        f"{HELD}"
        "test_compiled_code_is_compiled_once_for_the_first_pass_and_once_for_all",
    ),
    Mutant(
        "what a method remembers in new memory every step",
        "optim/_memory.py",
        "if alike(there, [x]):",
        "if False:",
        "tests/optim/test_compile.py::"
        "test_a_compiled_step_of_a_method_that_remembers_is_compiled_twice[friendly_sam]",
    ),
]
