"""Defects by name, as edits of the source, and the test that each must turn red."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """``old``, found once in ``file``, becomes ``new``; ``test`` must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


METRIC, TENSORS = "core/_metric.py", "core/_tensors.py"
TWO_POINT, CHECKS = "core/_two_point.py", "core/_checks.py"
WEIGHTS, ENGINE = "optim/_weights.py", "optim/_engine.py"
REPLAY, SAM, PROBE = "optim/_replay.py", "optim/_sam.py", "optim/_probe.py"

ARITHMETIC = "tests/core/test_tensors.py::"
BALL = "tests/core/test_ball.py::"
PER_GROUP = "tests/core/test_per_group.py::"
STEP = "tests/optim/test_step.py::"
RESTORE = "tests/optim/test_restore.py::"
BUFFERS = "tests/optim/test_buffers.py::"
RANDOM = "tests/optim/test_random.py::"
RESUME = "tests/optim/test_resume.py::"
CONTRACT = "tests/optim/test_torch_contract.py::"
ACCUMULATE = "tests/optim/test_accumulate.py::"
REFUSALS = "tests/optim/test_refusals.py::"
BASE = "tests/optim/test_base.py::"
QUADRATIC = f"{STEP}test_a_step_on_a_quadratic_is_the_closed_form[0.5]"

MUTANTS = [
    Mutant(
        "no perturbation",
        WEIGHTS,
        "        ts.add_(moved, [e for _, e in pairs])\n",
        "",
        QUADRATIC,
    ),
    Mutant(
        "flipped sign",
        WEIGHTS,
        "ts.add_(moved, [e for _, e in pairs])",
        "ts.add_(moved, [-e for _, e in pairs])",
        QUADRATIC,
    ),
    Mutant(
        "l1 norm instead of l2",
        TENSORS,
        "torch._foreach_norm(short, 2, dtype=torch.float64)",
        "torch._foreach_norm(short, 1, dtype=torch.float64)",
        f"{PER_GROUP}test_every_group_has_a_ball_of_its_own",
    ),
    Mutant(
        "norm per tensor instead of global",
        METRIC,
        "        eps = ts.times(x, scale)\n",
        "        eps = [r * t / t.norm() for t in x]\n",
        f"{BALL}test_tensors_of_different_dtype_share_one_ball[2.0]",
    ),
    Mutant(
        "q instead of p in the exponent",
        METRIC,
        "h_q ** (1 / self.p)",
        "h_q ** (1 / q)",
        f"{BALL}test_a_long_bfloat16_gradient_has_an_exact_norm[3.0]",
    ),
    Mutant(
        "q - 1 becomes q",
        METRIC,
        "else q - 1",
        "else q",
        "tests/optim/test_reference.py::test_25_steps_around_sgd_equal_the_reference[1.5]",
    ),
    Mutant(
        "no scale before the power",
        METRIC,
        "unit = torch.where(s == 0, 1, s)",
        "unit, s = torch.ones_like(s), torch.ones_like(s)",
        f"{BALL}test_loss_scale_changes_nothing[dtype0-powers0-1.01]",
    ),
    Mutant(
        "ties not shared for p = 1",
        METRIC,
        "h_q = ts.power_total(g, unit, q)",
        "h_q = ts.power_total(g, unit, q).clamp(max=1)",
        f"{BALL}test_largest_entries_share_rho_equally_for_p_1[dtype0]",
    ),
    Mutant(
        "ties lost to rounding",
        TENSORS,
        "torch._foreach_div(torch._foreach_abs(list(xs)), _like(s, xs))",
        "torch._foreach_mul(torch._foreach_abs(list(xs)), _like(1 / s, xs))",
        f"{ARITHMETIC}test_the_largest_share_is_exactly_one[dtype1]",
    ),
    Mutant(
        "zero gradient not guarded",
        METRIC,
        "ok = (norm > 0) & norm.isfinite() & scale.to(narrow).isfinite()",
        "ok = norm.isfinite()",
        f"{BALL}test_a_zero_gradient_moves_nothing[dtype1-2.0]",
    ),
    Mutant(
        "NaN not zeroed",
        METRIC,
        "        ts.zero_unless_(eps, ok)\n",
        "",
        f"{BALL}test_a_gradient_that_is_not_finite_moves_nothing[dtype1-nan-2.0]",
    ),
    Mutant(
        "zero times NaN",
        TENSORS,
        "bits = [x.view(_INTEGER[x.dtype.itemsize]) for x in xs]",
        "bits = list(xs)",
        f"{BALL}test_a_gradient_that_is_not_finite_moves_nothing[dtype1-nan-2.0]",
    ),
    Mutant(
        "squares of bfloat16 gradients",
        TENSORS,
        "x.float() if x.dtype.itemsize < 4 else x for x in xs",
        "x for x in xs",
        f"{BALL}test_a_long_bfloat16_gradient_has_an_exact_norm[2.0]",
    ),
    Mutant(
        "a zero group stops the others",
        METRIC,
        "unit = torch.where(s == 0, 1, s)",
        "unit = s",
        f"{PER_GROUP}test_a_group_with_a_zero_gradient_does_not_stop_the_others[1.5]",
    ),
    Mutant(
        "long sums in float32",
        TENSORS,
        "flat[:cut].view(-1, _RUN), dim=1",
        "flat[None, :cut], dim=1",
        f"{ARITHMETIC}test_norm_of_a_long_float32_vector_keeps_its_digits[shape0]",
    ),
    Mutant(
        "squares overflow",
        TENSORS,
        "if _SAFE < n < 1 / _SAFE:",
        "if n > 0:",
        f"{ARITHMETIC}test_norm_of_float32_is_that_of_float64[1e+30]",
    ),
    Mutant(
        "squares vanish",
        TENSORS,
        "if _SAFE < n < 1 / _SAFE:",
        "if n < 1:",
        f"{ARITHMETIC}test_norm_of_float32_is_that_of_float64[1e-30]",
    ),
    Mutant(
        "rho not per group",
        TWO_POINT,
        "radii = [rho[k] for k in group]",
        "radii = [rho[0] for k in group]",
        f"{STEP}test_a_radius_per_group[model]",
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
        "            ts.copy_(self._moved, self._copies)\n            self._moved",
        "            self._moved",
        f"{RESTORE}test_after_a_loop[mlp-torch.float32]",
    ),
    Mutant(
        "restore by subtraction",
        WEIGHTS,
        "        ts.copy_(self._copies, moved)\n        self._moved = moved\n"
        "        ts.add_(moved, [e for _, e in pairs])\n",
        "        self._moved, before = moved, [p.clone() for p in moved]\n"
        "        ts.add_(moved, [e for _, e in pairs])\n"
        "        ts.copy_(self._copies, [p - (p - b) for p, b in zip(moved, "
        "[b + e - e for b, (_, e) in zip(before, pairs)])])\n",
        f"{RESTORE}test_100_restored_steps_do_not_drift[2.0]",
    ),
    Mutant(
        "restore skipped without a gradient",
        WEIGHTS,
        "            ts.copy_(self._moved, self._copies)\n            self._moved",
        "            for p, c in zip(self._moved, self._copies):\n"
        "                if p.grad is not None:\n"
        "                    p.copy_(c)\n"
        "            self._moved",
        f"{RESTORE}test_a_parameter_without_a_gradient_in_one_pass[1-torch.float32]",
    ),
    Mutant(
        "storage of the weights replaced",
        WEIGHTS,
        "            ts.copy_(self._moved, self._copies)\n            self._moved",
        "            for p, c in zip(self._moved, self._copies):\n"
        "                p.data = c.clone()\n"
        "            self._moved",
        f"{RESTORE}test_after_a_loop[mlp-torch.float32]",
    ),
    Mutant(
        "exception leaves the weights perturbed",
        ENGINE,
        "            program.close()\n            self._weights.restore()\n",
        "            program.close()\n",
        f"{RESTORE}test_after_an_exception[1-mlp-torch.float32]",
    ),
    Mutant(
        "old casts of the weights in autocast",
        WEIGHTS,
        "        torch.clear_autocast_cache()\n\n",
        "\n",
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
        "everyone = list(dict.fromkeys([*self._model.parameters(), *step.w]))",
        "everyone = step.w",
        f"{ACCUMULATE}"
        "test_outside_the_optimizer_the_gradient_is_that_of_the_last_pass[False]",
    ),
    Mutant(
        "perturbed loss returned",
        ENGINE,
        "            self.perturbed_loss = probe.loss\n",
        "            self.loss = self.perturbed_loss = probe.loss\n",
        "tests/optim/test_closure.py::test_the_clean_loss_is_returned",
    ),
    Mutant(
        "loss shared with the loop",
        PROBE,
        ".detach().clone()",
        ".detach()",
        f"{STEP}test_losses_written_into_one_tensor_are_told_apart",
    ),
    Mutant(
        "second gradient ignored",
        TWO_POINT,
        "        if not self.combine.needs_g:\n            g = []\n"
        "        g_eps = yield Ask(ascent)\n",
        "        g_eps = g\n        yield Ask(ascent)\n",
        QUADRATIC,
    ),
    Mutant(
        "first gradient kept for nothing",
        TWO_POINT,
        "        if not self.combine.needs_g:\n            g = []\n",
        "",
        "tests/core/test_two_point.py::test_a_combination_that_needs_no_g_gets_none",
    ),
    Mutant(
        "gate ignored",
        TWO_POINT,
        "if not any(rho) or not self.gate(step):",
        "if not any(rho):",
        f"{BASE}test_20_steps_without_perturbation_are_those_of_the_base"
        "[momentum-closed-gate]",
    ),
    Mutant(
        "momentum lost on resume",
        SAM,
        "        return self.base.state_dict()\n",
        "        return {**self.base.state_dict(), 'state': {}}\n",
        f"{RESUME}test_a_checkpoint_continues[sam-sam-momentum]",
    ),
    Mutant(
        "step counter lost on resume",
        SAM,
        "        self.base.load_state_dict(state_dict)\n",
        "        self.base.load_state_dict(state_dict)\n"
        "        for group in self.param_groups: group[_STEP] = 0\n",
        f"{RESUME}test_a_checkpoint_in_the_middle_of_an_interval_continues[1]",
    ),
    Mutant(
        "groups of before the loading",
        SAM,
        "        return self.base.param_groups\n",
        "        return self.__dict__.setdefault('_groups', self.base.param_groups)\n",
        f"{CONTRACT}test_a_scheduler_still_acts_after_loading[sam-sam]",
    ),
    Mutant(
        "steps not counted",
        SAM,
        "            group[_STEP] += 1\n",
        "            pass\n",
        "tests/core/test_two_point.py::test_a_gate_decides_when",
    ),
    Mutant(
        "hooks unheard",
        SAM,
        "        return self.base.register_state_dict_pre_hook(hook, prepend)\n",
        "        return super().register_state_dict_pre_hook(hook, prepend)\n",
        f"{CONTRACT}"
        "test_state_dict_hooks_run_whichever_object_they_are_registered_on[sam]",
    ),
    Mutant(
        "a group with an impossible radius is added",
        SAM,
        "        radius(param_group.get(_RHO, self.defaults[_RHO]), _RHO)\n",
        "",
        f"{CONTRACT}test_a_group_with_an_impossible_radius_is_not_added",
    ),
    Mutant(
        "BatchNorm updated twice",
        REPLAY,
        "    def rewind(self) -> None:\n        self._start.load()\n\n"
        "    def finish(self) -> None:\n        self._end.load()\n",
        "    def rewind(self) -> None:\n        pass\n\n"
        "    def finish(self) -> None:\n        pass\n",
        f"{BUFFERS}test_batches_are_counted_once",
    ),
    Mutant(
        "buffers of the last pass kept",
        REPLAY,
        "    def finish(self) -> None:\n        self._end.load()\n",
        "    def finish(self) -> None:\n        pass\n",
        f"{BUFFERS}test_a_step_leaves_buffers_as_one_forward_pass_does[bn1d]",
    ),
    Mutant(
        "replaced buffers not brought back",
        REPLAY,
        "            buffers.clear()\n            buffers.update(then)\n",
        "            pass\n",
        f"{BUFFERS}test_both_passes_start_from_the_same_buffers[custom]",
    ),
    Mutant(
        "new dropout mask in the second pass",
        REPLAY,
        "    def rewind(self) -> None:\n        self._set(self._start)\n",
        "    def rewind(self) -> None:\n        pass\n",
        f"{RANDOM}test_dropout_masks_are_equal_in_both_passes",
    ),
    Mutant(
        "random stream advanced twice",
        REPLAY,
        "    def rewind(self) -> None:\n        self._set(self._start)\n\n"
        "    def finish(self) -> None:\n        self._set(self._end)\n",
        "    def rewind(self) -> None:\n        pass\n\n"
        "    def finish(self) -> None:\n        pass\n",
        f"{RANDOM}test_leaving_the_second_pass_leaves_the_streams_as_after_one",
    ),
    Mutant(
        "random stream not moved on",
        REPLAY,
        "    def finish(self) -> None:\n        self._set(self._end)\n",
        "    def finish(self) -> None:\n        self._set(self._start)\n",
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
        SAM,
        "        if self._open or not self._ready:\n",
        "        if self._open:\n",
        f"{REFUSALS}test_a_step_without_probes_is_refused",
    ),
    Mutant(
        "NaN let through as a radius",
        CHECKS,
        "if not 0 <= rho < math.inf:",
        "if rho < 0 or rho == math.inf:",
        f"{REFUSALS}test_a_wrong_argument_is_refused[rho nan]",
    ),
    Mutant(
        "cosine from a dot product in float32",
        TENSORS,
        "    return 1 - norm(apart) ** 2 / 2\n",
        "    x, y = (torch.cat([t.float().flatten() for t in v]) for v in (a, b))\n"
        "    return (x @ y / (x.norm() * y.norm())).double() + 0 * norm(apart)\n",
        f"{ARITHMETIC}test_cosine_of_float32_vectors_has_digits_beyond_float32[0.0001]",
    ),
]
