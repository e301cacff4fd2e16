"""Defects of the optimizer, and the test that each of them must turn red."""

from tests.mutants.mutant import Mutant

WEIGHTS = "optim/_weights.py"
ENGINE = "optim/_engine.py"
REPLAY = "optim/_replay.py"
MODEL = "optim/_model_replay.py"
SAM = "optim/_sam.py"
SHARED = "optim/_shared.py"
BASES = "optim/_bases.py"
PROBE = "optim/_probe.py"
STATISTICS = "optim/_statistics.py"
OPTIM_CHECKS = "optim/_checks.py"

STEP = "tests/optim/test_step.py::"
RESTORE = "tests/optim/test_restore.py::"
BUFFERS = "tests/optim/test_buffers.py::"
RANDOM = "tests/optim/test_random.py::"
RESUME = "tests/optim/test_resume.py::"
CONTRACT = "tests/optim/test_torch_contract.py::"
ACCUMULATE = "tests/optim/test_accumulate.py::"
REFUSALS = "tests/optim/test_refusals.py::"
BASE = "tests/optim/test_base.py::"
MEMORY = "tests/optim/test_memory.py::"
QUADRATIC = f"{STEP}test_a_step_on_a_quadratic_is_the_closed_form[0.5]"

OPTIM = [
    Mutant(
        "no perturbation",
        WEIGHTS,
        "        _add_(moved[: len(at)], pick(eps, at), seed, 0)\n",
        "",
        QUADRATIC,
    ),
    Mutant(
        "flipped sign",
        WEIGHTS,
        "_add_(moved[: len(at)], pick(eps, at), seed, 0)",
        "_add_(moved[: len(at)], [-e for e in pick(eps, at)], seed, 0)",
        QUADRATIC,
    ),
    Mutant(
        "norm over the frozen",
        SAM,
        "            if p.requires_grad\n",
        "",
        f"{RESTORE}test_a_frozen_parameter_neither_moves_nor_counts",
    ),
    Mutant(
        "no restore",
        WEIGHTS,
        "            ts.copy_(self._held, self._copies)\n            self._moved",
        "            self._moved",
        f"{RESTORE}test_after_a_loop[mlp-torch.float32]",
    ),
    Mutant(
        "restore by subtraction",
        WEIGHTS,
        "        ts.copy_(self._copies, self._held)\n"
        "        _add_(moved[: len(at)], pick(eps, at), seed, 0)\n",
        "        before = [p.clone() for p in moved]\n"
        "        _add_(moved[: len(at)], pick(eps, at), seed, 0)\n"
        "        ts.copy_(self._copies, "
        "[b + e - e for b, e in zip(before, pick(eps, at))])\n",
        f"{RESTORE}test_100_restored_steps_do_not_drift[2.0]",
    ),
    Mutant(
        "restore skipped without a gradient",
        WEIGHTS,
        "            ts.copy_(self._held, self._copies)\n            self._moved",
        "            for p, c in zip(self._moved, self._copies):\n"
        "                if p.grad is not None:\n"
        "                    p.copy_(c)\n"
        "            self._moved",
        f"{RESTORE}test_a_parameter_without_a_gradient_in_one_pass[1-torch.float32]",
    ),
    Mutant(
        "storage of the weights replaced",
        WEIGHTS,
        "            ts.copy_(self._held, self._copies)\n            self._moved",
        "            for p, c in zip(self._moved, self._copies):\n"
        "                p.data = c.clone()\n"
        "            self._moved",
        f"{RESTORE}test_after_a_loop[mlp-torch.float32]",
    ),
    Mutant(
        "exception leaves the weights perturbed",
        ENGINE,
        "            program.close()\n            self._return()\n",
        "            program.close()\n",
        f"{RESTORE}test_after_an_exception[1-mlp-torch.float32]",
    ),
    Mutant(
        "old casts of the weights in autocast",
        WEIGHTS,
        "casts of the weights.\n        torch.clear_autocast_cache()\n",
        "casts of the weights.\n",
        f"{STEP}test_an_autocast_region_around_the_loop_sees_the_perturbed_weights",
    ),
    Mutant(
        "gradients not cleared between passes",
        ENGINE,
        "                _write(everyone, [None] * len(everyone))\n",
        "                if not log.passes: _write(everyone, [None] * len(everyone))\n",
        QUADRATIC,
    ),
    Mutant(
        "gradients of others not cleared",
        ENGINE,
        "everyone = _parameters(self._model, step.w)",
        "everyone = step.w",
        f"{ACCUMULATE}"
        "test_outside_the_optimizer_the_gradient_is_that_of_the_last_pass[False]",
    ),
    Mutant(
        "perturbed loss returned",
        STATISTICS,
        "loss=self._at_w.loss()[1],",
        "loss=perturbed,",
        "tests/methods/test_statistics.py::"
        "test_statistics_are_those_of_w_and_of_the_perturbation[sam]",
    ),
    Mutant(
        "loss shared with the loop",
        PROBE,
        "torch.as_tensor(value).detach().clone()",
        "torch.as_tensor(value).detach()",
        f"{STEP}test_losses_written_into_one_tensor_are_told_apart",
    ),
    Mutant(
        "momentum lost on resume",
        SHARED,
        "        return content\n",
        "        return {**content, 'state': {}}\n",
        f"{RESUME}test_a_checkpoint_continues[sam-sam-momentum]",
    ),
    Mutant(
        "step counter lost on resume",
        SHARED,
        "        self.base.load_state_dict(state_dict)\n",
        "        self.base.load_state_dict(state_dict)\n"
        "        for group in self.param_groups: group[STEP] = 0\n",
        f"{RESUME}test_a_checkpoint_in_the_middle_of_an_interval_continues[1]",
    ),
    Mutant(
        "groups of before the loading",
        SHARED,
        "        return self.base.param_groups\n",
        "        return self.__dict__.setdefault('_groups', self.base.param_groups)\n",
        f"{CONTRACT}test_a_scheduler_still_acts_after_loading[sam-sam]",
    ),
    Mutant(
        "steps not counted",
        SHARED,
        "            group[STEP] += 1\n",
        "            pass\n",
        "tests/core/test_two_point.py::test_a_gate_decides_when",
    ),
    Mutant(
        "hooks unheard",
        SHARED,
        "        return self.base.register_state_dict_pre_hook(hook, prepend)\n",
        "        return super().register_state_dict_pre_hook(hook, prepend)\n",
        f"{CONTRACT}"
        "test_state_dict_hooks_run_whichever_object_they_are_registered_on[sam]",
    ),
    Mutant(
        "a group with an impossible radius is added",
        SHARED,
        "            self.param_groups.pop()\n",
        "",
        f"{CONTRACT}test_a_group_with_an_impossible_radius_is_not_added",
    ),
    Mutant(
        "BatchNorm updated twice",
        ENGINE,
        "self._replays.append(ModelReplay(model, self._weights, streams))",
        "pass",
        f"{BUFFERS}test_batches_are_counted_once",
    ),
    Mutant(
        "buffers of the last pass kept",
        MODEL,
        "        self._left.load()\n",
        "        pass\n",
        f"{BUFFERS}test_a_step_leaves_buffers_as_one_forward_pass_does[bn1d]",
    ),
    Mutant(
        "replaced buffers not brought back",
        "optim/_holders.py",
        "            registry.clear()\n            registry.update(then)\n",
        "            pass\n",
        f"{BUFFERS}test_both_passes_start_from_the_same_buffers[custom]",
    ),
    Mutant(
        "new dropout mask in the second pass",
        REPLAY,
        "    def rewind(self) -> None:\n        self.set(self._start)\n",
        "    def rewind(self) -> None:\n        pass\n",
        f"{RANDOM}test_dropout_masks_are_equal_in_both_passes",
    ),
    Mutant(
        "random stream advanced twice",
        REPLAY,
        "    def rewind(self) -> None:\n        self.set(self._start)\n\n"
        "    def finish(self) -> None:\n        self.set(self._end)\n",
        "    def rewind(self) -> None:\n        pass\n\n"
        "    def finish(self) -> None:\n        pass\n",
        f"{RANDOM}test_leaving_the_second_pass_leaves_the_streams_as_after_one",
    ),
    Mutant(
        "random stream not moved on",
        REPLAY,
        "    def finish(self) -> None:\n        self.set(self._end)\n",
        "    def finish(self) -> None:\n        self.set(self._start)\n",
        f"{BASE}test_20_steps_without_perturbation_are_those_of_the_base"
        "[momentum-zero-perturbation]",
    ),
    Mutant(
        "accumulation overwrites",
        ENGINE,
        "            if accumulate:\n                _accumulate(everyone, before)\n",
        "",
        f"{ACCUMULATE}test_a_loop_per_micro_batch_is_m_sam[4]",
    ),
    Mutant(
        "gradients lost when an accumulating loop fails",
        ENGINE,
        "            if accumulate:\n                _write(everyone, before)\n",
        "",
        f"{ACCUMULATE}"
        "test_the_gradients_are_those_from_before_if_a_loop_fails[1-break]",
    ),
    Mutant(
        "sparse gradients let through",
        ENGINE,
        "if g_i is not None and g_i.layout != torch.strided:",
        "if False:",
        f"{REFUSALS}test_a_sparse_gradient_is_refused[1]",
    ),
    Mutant(
        "step without probes let through",
        "optim/_shared.py",
        "        if progress.open or not (ready or self._is_trial()):\n",
        "        if progress.open:\n",
        f"{REFUSALS}test_a_step_without_probes_is_refused",
    ),
    Mutant(
        "expanded buffers written to",
        "optim/_tensor_copy.py",
        "n > 1 and k == 0",
        "False",
        f"{BUFFERS}test_expanded_buffers_can_be_protected",
    ),
    Mutant(
        "one base for two SAMs",
        BASES,
        "    if any(one in _in_use for one in (base, *held_by(base))):\n",
        "    if False:\n",
        f"{REFUSALS}test_a_wrong_argument_is_refused[base taken]",
    ),
    Mutant(
        "a base with a loaded checkpoint refused",
        BASES,
        "    if any(one in _in_use for one in (base, *held_by(base))):\n",
        "    if any('sam_step' in group for group in base.param_groups):\n",
        f"{RESUME}test_a_base_that_has_loaded_a_checkpoint_is_not_taken",
    ),
    Mutant(
        "NaN added to the weights",
        "core/_tensors.py",
        "        if ok:\n            torch._foreach_add_(",
        "        if True:\n            torch._foreach_add_(",
        f"{RESTORE}test_a_gradient_that_is_not_finite[nan-0-torch.float32]",
    ),
    Mutant(
        "a perturbation looked at before it is added",
        WEIGHTS,
        "        if not away:\n",
        "        if not any(e.any() for e in pick(eps, at)):\n",
        "tests/optim/test_compile.py::test_the_way_there_and_back_is_one_graph[2.0]",
    ),
    Mutant(
        "a perturbation that is kept during the second pass",
        ENGINE,
        "                ask = ask.there()\n",
        "",
        f"{MEMORY}test_neither_gradient_nor_perturbation_outlives_the_first_pass"
        "[LpBall(p=2.0)-unscaled]",
    ),
    Mutant(
        "a first gradient that is kept and not needed",
        "core/_two_point.py",
        "        if not self.combine.needs_g:\n            g = []\n",
        "",
        f"{MEMORY}test_neither_gradient_nor_perturbation_outlives_the_first_pass"
        "[LpBall(p=2.0)-unscaled]",
    ),
    Mutant(
        "a memory of those alone whose gradients the base has left",
        "optim/_memory.py",
        "for p, v, takes_part in rows if v is not None and takes_part]",
        "for p, v, _ in rows if v is not None and p.grad is not None]",
        "tests/optim/test_bystanders.py::"
        "test_a_base_that_clears_gradients_leaves_the_memory[<lambda>-True]",
    ),
    Mutant(
        "a step that a fused base has skipped, counted",
        "optim/_shared.py",
        "if skipped_by_scaler(self.base):",
        "if False:",
        "tests/optim/test_bystanders.py::"
        "test_a_step_that_a_fused_base_skips_is_no_step",
    ),
    Mutant(
        "a part of the gradient for parameters of another optimizer",
        "optim/_engine.py",
        'elif ask.part == "rest":',
        "elif False:",
        "tests/optim/test_bystanders.py::"
        "test_other_optimizers_find_the_gradient_of_the_whole_loss[part_sam-False]",
    ),
    Mutant(
        "memory that is narrowed when it is loaded",
        "optim/_hooks.py",
        "        base.register_load_state_dict_pre_hook(listener.loading)\n",
        "",
        "tests/optim/test_bystanders.py::"
        "test_memory_of_narrow_weights_is_resumed_bit_for_bit[lookbehind_sam-base]",
    ),
    Mutant(
        "a state dict that later steps write to",
        "optim/_memory.py",
        '                content["state"][at] = own\n',
        "            pass\n",
        "tests/optim/test_bystanders.py::"
        "test_what_is_remembered_in_a_state_dict_stays_as_it_was[stale_sam-dtype0]",
    ),
    Mutant(
        "one tensor under two names",
        "optim/_memory.py",
        "whole_as(x.clone(), p)",
        "whole_as(x, p)",
        "tests/optim/test_bystanders.py::test_one_memory_may_become_another[order0]",
    ),
    Mutant(
        "a memory that is overwritten before it becomes another",
        "optim/_memory.py",
        "[x.clone() if x.data_ptr() in held else x for x in new]",
        "new",
        "tests/optim/test_bystanders.py::test_one_memory_may_become_another[order0]",
    ),
    Mutant(
        "a state dict that was loaded, written to",
        "optim/_memory.py",
        "            entry.update(_with_own_memory(entry))\n",
        "            pass\n",
        "tests/optim/test_bystanders.py::"
        "test_what_is_remembered_in_a_state_dict_stays_as_it_was[stale_sam-dtype0]",
    ),
    Mutant(
        "a climb that goes on from a block that is over",
        "core/nested.py",
        'at > 0 and step.memory.number("block") == block',
        "at > 0",
        "tests/methods/test_lookbehind_memory.py::"
        "test_a_step_of_the_base_alone_ends_a_block",
    ),
]
