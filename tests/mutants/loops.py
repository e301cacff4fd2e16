"""Defects of precision, scaling and closures, and the test each must turn red."""

from tests.mutants.mutant import Mutant

TENSORS = "core/_tensors.py"
ROUNDING = "core/_rounding.py"
DECAY = "core/_decay.py"
VIEW = "optim/_gradient_view.py"
WEIGHTS = "optim/_weights.py"
ENGINE = "optim/_engine.py"
SAM = "optim/_sam.py"
CHECKS = "optim/_checks.py"

AMP = "tests/optim/test_amp.py::"
NARROW = "tests/optim/test_narrow.py::"
DECAYED = "tests/optim/test_decay.py::"
BATCHES = "tests/integrations/test_batches.py::"
LAST = "tests/methods/test_last_gradient.py::"
MICRO = "tests/methods/test_micro_batches.py::"

LOOPS = [
    Mutant(
        "closure called once",
        SAM,
        "        return call_per_pass(",
        "        self.method = TwoPoint(gate=lambda _: False)\n"
        "        return call_per_pass(",
        "tests/optim/test_closure.py::test_steps_with_a_closure_equal_probes[sam-sgd]",
    ),
    Mutant(
        "a scaler's closure let through",
        "optim/_scaling.py",
        "    if closure is not None:\n",
        "    if closure is not None:\n        return\n",
        f"{AMP}test_a_scaler_with_a_closure_is_refused_before_anything_moves[False]",
    ),
    Mutant(
        "double unscale",
        VIEW,
        "factor = 1.0 if self._scale is None else self._scale",
        "factor = 1.0",
        f"{DECAYED}test_a_loss_scale_changes_nothing",
    ),
    Mutant(
        "an overflow hidden from the scaler, so that the scale is not updated",
        ENGINE,
        "_write(step.w, view.shown(descend))",
        "_write(step.w, [v if v is None else v.nan_to_num(0, 0, 0) for v in descend])",
        f"{AMP}test_an_overflow_in_the_descent_skips_the_step_"
        "and_lowers_the_scale_once[bad0]",
    ),
    Mutant(
        "maximize ignored",
        VIEW,
        "-1.0 if maximizes[k] else 1.0",
        "1.0",
        "tests/optim/test_maximize.py::"
        "test_the_adversary_goes_down_and_the_step_goes_up",
    ),
    Mutant(
        "the sign of a complex number taken from its real part",
        TENSORS,
        "p * torch.sgn(x)",
        "p * x.real.sign()",
        "tests/core/test_complex.py::"
        "test_the_perturbation_is_the_highest_point_in_moduli[1.5-dtype1]",
    ),
    Mutant(
        "narrow weights rounded to the nearest",
        ROUNDING,
        "add_(noise).bitwise_and_",
        "add_(2**15).bitwise_and_",
        f"{NARROW}test_the_perturbation_arrives_on_average[dtype0]",
    ),
    Mutant(
        "all tensors rounded alike",
        WEIGHTS,
        "numbers = [first + i for i in narrow]",
        "numbers = [first for _ in narrow]",
        f"{NARROW}test_two_tensors_are_not_rounded_alike",
    ),
    Mutant(
        "every step rounded alike",
        ENGINE,
        "at.eps, step.index, at.frozen)",
        "at.eps, 0, at.frozen)",
        f"{NARROW}test_a_second_run_perturbs_alike",
    ),
    Mutant(
        "decay not at w + eps",
        DECAY,
        "p if e is None else p + e for p",
        "p for p",
        f"{DECAYED}test_a_step_has_the_closed_form_of_the_penalised_loss",
    ),
    Mutant(
        "decay twice",
        DECAY,
        "[-c for c in decay]",
        "[0.0 for c in decay]",
        f"{DECAYED}test_a_step_has_the_closed_form_of_the_penalised_loss",
    ),
    Mutant(
        "memory of the last micro-batch alone",
        "core/_program.py",
        "values if n == 1 else [_mean(*xs, n) for xs in pairs]",
        "values",
        f"{MICRO}test_the_order_of_micro_batches_does_not_matter[friendly_sam]",
    ),
    Mutant(
        "a number of the last micro-batch alone",
        "core/_program.py",
        "value if value == old else old + (value - old) / n",
        "value",
        f"{MICRO}test_numbers_of_micro_batches_equal_their_formula",
    ),
    Mutant(
        "a correction that is as short as the mean of unit vectors",
        "core/programs.py",
        "vec.ratio(vec.norm(step.w, g), vec.norm(step.w, u))",
        "vec.norm(step.w, g)",
        f"{MICRO}test_micro_batches_equal_their_formula[sgd-looksam]",
    ),
    Mutant(
        "a mask that is a mean of masks",
        "core/sparse.py",
        'if step.memory.of_this_step("mask") is None:',
        "if True:",
        f"{MICRO}test_of_masks_that_of_the_first_examples_is_kept",
    ),
    Mutant(
        "what a failed loop of a step has kept",
        "optim/_memory.py",
        "        self._w = w\n        self._loop = Carried()\n",
        "        self._w = w\n",
        f"{MICRO}test_a_loop_that_fails_at_its_end_carries_nothing_on[wsam]",
    ),
    Mutant(
        "torch's second derivative of normed weights",
        ENGINE,
        "wrong = ask.along is not None and has_weight_norm(self._model)",
        "wrong = False",
        "tests/methods/test_second_order.py::"
        "test_the_gradient_is_that_of_the_objective[weight-norm]",
    ),
    Mutant(
        "a view of a trained weight that counts as another tensor",
        "optim/_frozen.py",
        "a <= t.data_ptr() < b",
        "a < t.data_ptr() < b",
        "tests/optim/test_frozen_parameters.py::"
        "test_a_view_of_a_trained_weight_moves_with_it[0]",
    ),
    Mutant(
        "a layer that had no gradient in the last step climbs along an older one",
        "core/combine.py",
        '        step.memory.drop("stale")\n',
        "",
        f"{LAST}test_a_layer_that_the_step_before_left_out_stays[stale_sam]",
    ),
    Mutant(
        "a pair of steps that goes on after a step of the base",
        "core/programs.py",
        'step.memory.number("pair") != pair',
        "False",
        f"{LAST}test_an_alternating_pair_that_a_plain_step_broke_begins_anew[plain]",
    ),
    Mutant(
        "gradients in memory that a hook fills anew",
        ENGINE,
        "self._views or any(map(_is_hooked, everyone))",
        "self._views",
        "tests/optim/test_torch_utilities.py::"
        "test_gradients_that_share_memory_are_told_apart[gsam]",
    ),
    Mutant(
        "a running mean in bfloat16",
        "core/vectors.py",
        "x if x is None else ts.wide([x])[0] for x in a",
        "x for x in a",
        f"{NARROW}test_a_running_mean_of_narrow_gradients_is_not_rounded_away",
    ),
    Mutant(
        "a mean of minus infinity and minus infinity",
        "averaging/_tensors.py",
        "m.isinf() | t.isinf()",
        "m.isinf() & ~t.isinf()",
        "tests/averaging/test_averages.py::test_a_mask_of_infinities_stays[False-EMA]",
    ),
    Mutant(
        "one container for all passes",
        "integrations/_batch.py",
        "_with_own_containers(self._kept) if self._begun else self.batch",
        "self.batch",
        f"{BATCHES}test_entries_of_a_batch_are_replaced_once_in_skorch",
    ),
    Mutant(
        "a batch that changes in place",
        "integrations/_batch.py",
        "t._version != version for t, version in self._versions",
        "False for _ in self._versions",
        f"{BATCHES}test_a_batch_that_changes_in_place_is_refused_in_skorch",
    ),
    Mutant(
        "modes of a schedule-free base that nobody finds",
        "optim/_shared.py",
        "if name in _MODES and hasattr(base, name):",
        "if False:",
        "tests/integrations/test_transformers.py::"
        "test_a_schedule_free_base_is_told_to_train",
    ),
]
