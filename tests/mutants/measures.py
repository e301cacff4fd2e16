"""Defects of the measures, and the test that each of them must turn red."""

from tests.mutants.mutant import Mutant

BALL = "diagnostics/_ball.py"
BLOCKED = "diagnostics/_blocked.py"
AGREEMENT = "diagnostics/_agreement.py"
GRID = "diagnostics/_grid.py"
GROUPS = "diagnostics/_m_sharpness.py"
FUNCTIONAL = "diagnostics/_functional.py"
KRYLOV = "diagnostics/_lanczos.py"
MEASURES = "diagnostics/sharpness.py"
PRODUCTS = "diagnostics/_products.py"

LAYOUT = "tests/diagnostics/test_blocked.py::"
HESSIAN = "tests/diagnostics/test_hessian.py::"
M_SHARPNESS = "tests/diagnostics/test_m_sharpness.py::"
OBJECTIVE = "diagnostics/_objective.py"
FILES = "tests/diagnostics/test_landscape_files.py::"
TOLD = "tests/diagnostics/test_agreement.py::"
OTHER = "tests/diagnostics/test_other_functions.py::"
STILL = "diagnostics/_still.py"
MONITOR = "tests/diagnostics/test_monitor.py::"
WATCHED = "tests/distributed/test_monitor.py::"
RANKS = "tests/diagnostics/test_distributed.py::"
SHARPNESS = "tests/diagnostics/test_sharpness.py::"
SPECTRUM = "tests/diagnostics/test_spectrum.py::"
WORST = "tests/diagnostics/test_worst_sharpness.py::"

MEASURE_DEFECTS = [
    Mutant(
        "an ascent that leaves the ball",
        MEASURES,
        "trial = ball.project(_sum(eps, ball.climb(g, length)), rho)",
        "trial = _sum(eps, ball.climb(g, length))",
        f"{WORST}test_an_ascent_never_leaves_the_ball_and_never_falls[None-2.0]",
    ),
    Mutant(
        "the last point of an ascent instead of the best",
        MEASURES,
        "        if value > top:\n",
        "        if value == value:\n",
        f"{WORST}test_an_ascent_keeps_the_highest_point_where_a_step_goes_down",
    ),
    Mutant(
        "an adaptive ascent that is projected onto the plain ball",
        BALL,
        "return e if unit is None else torch.where(unit > 0, e / unit, 0)",
        "return e if unit is None else torch.where(unit > 0, e, 0)",
        f"{WORST}test_worst_case_on_a_network_equals_a_long_search[True-inf]",
    ),
    Mutant(
        "Gaussian draws of length rho per weight",
        MEASURES,
        "sigma = rho / math.sqrt(max(1, ball.dimension()))",
        "sigma = rho",
        f"{SHARPNESS}test_draws_have_the_expected_length_in_units_of_the_scale",
    ),
    Mutant(
        "biases in another unit than weights",
        "core/scales.py",
        "[p.abs() + self.eta for p in local([step.w[i] for i in at])]",
        "[p.abs() if p.dim() > 1 else torch.ones_like(p)"
        " for p in local([step.w[i] for i in at])]",
        f"{SHARPNESS}"
        "test_rescaled_layers_with_biases_have_the_same_sharpness_in_units_of_magnitude"
        "[sharpness-LpBall(p=2.0)-10.0]",
    ),
    Mutant(
        "weights without extent that count in the length of a draw",
        BALL,
        "int((mask if unit is None else mask & (unit > 0)).sum())",
        "int(mask.sum())",
        f"{SHARPNESS}test_weights_without_extent_do_not_count_in_the_length_of_a_draw",
    ),
    Mutant(
        "an adaptive column that rescaling moves",
        "experiments/measure.py",
        "scales.Magnitude()",
        "scales.Adaptive(0.01)",
        "tests/experiments/test_measure.py::"
        "test_the_adaptive_column_is_blind_to_the_scale_of_layers",
    ),
    Mutant(
        "the standard deviation instead of the standard error",
        MEASURES,
        "error=float(rises.std() / math.sqrt(draws))",
        "error=float(rises.std())",
        f"{SHARPNESS}test_average_on_a_quadratic_is_half_the_scaled_trace",
    ),
    Mutant(
        "logits normalised without their mean taken off",
        MEASURES,
        "logits.std(dim=1, correction=0, keepdim=True)",
        "logits.square().mean(dim=1, keepdim=True).sqrt()",
        f"{SHARPNESS}test_normalised_logits_are_those_of_the_formula",
    ),
    Mutant(
        "one perturbation for all groups",
        GROUPS,
        "[g_i[k] for g_i in g]",
        "[g_i[0] for g_i in g]",
        f"{M_SHARPNESS}test_many_at_once_is_one_by_one[mlp-1]",
    ),
    Mutant(
        "groups found before a model refused are counted and lost",
        GROUPS,
        "                return self._one_by_one(parts)\n",
        "                return found\n",
        f"{M_SHARPNESS}test_a_model_that_fails_after_some_chunks_is_done_one_by_one",
    ),
    Mutant(
        "an eigenvalue that occurs twice counts once",
        KRYLOV,
        "        if k == 1 or (full ",
        "        if len(found) == k or (full ",
        f"{HESSIAN}test_every_eigenvalue_counts_as_often_as_it_occurs",
    ),
    Mutant(
        "a random start that passes for an eigenvector",
        KRYLOV,
        "_FEW = 5\n",
        "_FEW = 1\n",
        f"{HESSIAN}test_one_eigenvalue_above_a_cluster_is_found[0.001-1.05-300]",
    ),
    Mutant(
        "the largest in size instead of the largest",
        KRYLOV,
        "best = range(count - 1, count - 1 - need, -1)",
        "best = values.abs().argsort(descending=True)[:need].tolist()",
        f"{HESSIAN}test_the_largest_eigenvalue_is_not_the_largest_in_size",
    ),
    Mutant(
        "the Hessian of each process's own part",
        PRODUCTS,
        "return _finite(self.objective.sum(self.flat(total)).to(v.dtype))",
        "return self.flat(total).to(v.dtype)",
        f"{RANKS}test_two_processes_measure_what_one_does",
    ),
    Mutant(
        "a sum instead of a mean over draws",
        "diagnostics/hessian.py",
        "weights = torch.cat([weights for _, weights in quadratures]) / draws",
        "weights = torch.cat([weights for _, weights in quadratures])",
        f"{SPECTRUM}test_a_density_has_the_moments_of_its_starts[hessian]",
    ),
    Mutant(
        "a monitor that measures in training mode",
        "diagnostics/monitor.py",
        "        with evaluating(self.objective.model):\n",
        "        if True:\n",
        f"{MONITOR}test_what_sam_measured_is_recorded_too",
    ),
    Mutant(
        "norms of several balls as their mean",
        "diagnostics/monitor.py",
        '("grad_norm", _length)',
        '("grad_norm", torch.mean)',
        f"{MONITOR}test_norms_of_several_balls_are_recorded_as_that_of_the_gradient"
        "[layers]",
    ),
    Mutant(
        "a loss of zero that was not measured",
        "diagnostics/monitor.py",
        "there = [value is not None for value in values]",
        "there = [bool(value) for value in values]",
        f"{MONITOR}test_a_loss_of_zero_is_recorded",
    ),
    Mutant(
        "a monitor that writes in every process",
        "diagnostics/monitor.py",
        "        if group is not None and dist.get_rank(group) != 0:\n",
        "        if False:\n",
        f"{WATCHED}test_one_process_of_a_group_writes",
    ),
    Mutant(
        "what SAM measured on the batch of one process",
        "diagnostics/monitor.py",
        "totals, counts = self.objective.sum(sums)",
        "totals, counts = sums",
        f"{WATCHED}test_records_are_alike_and_those_of_one_process",
    ),
    Mutant(
        "replicas inside of a wrapper, measured as they are",
        "diagnostics/_guards.py",
        "    if replicas(inner):\n",
        "    if False:\n",
        f"{WATCHED}test_a_wrapper_that_hides_replicas_is_refused",
    ),
    Mutant(
        "restarts that all begin at one point",
        MEASURES,
        "        start = ball.random(rho, draw)\n",
        "        start = first\n",
        f"{WORST}test_a_restart_finds_the_hill_to_which_the_gradient_does_not_lead[1]",
    ),
    Mutant(
        "the last ascent instead of the best",
        MEASURES,
        "best = max(rises, key=max)",
        "best = rises[-1]",
        f"{WORST}test_the_history_is_that_of_the_best_ascent",
    ),
    Mutant(
        "restarts inside of the ball",
        BALL,
        "torch.where(size > 0, radius / size, 0.0)",
        "torch.where(size > 0, radius / (2 * size), 0.0)",
        f"{WORST}test_the_starts_of_one_seed_are_gaussian_directions",
    ),
    Mutant(
        "the flattest eigenvectors first",
        "diagnostics/directions.py",
        "for vector in found.vectors or ()]",
        "for vector in (found.vectors or ())[::-1]]",
        "tests/diagnostics/test_directions.py::"
        "test_eigenvectors_are_those_of_the_whole_matrix[3]",
    ),
    Mutant(
        "a fused ReLU that makes NaN zero",
        BLOCKED,
        "_SLOPE = 1e-30",
        "_SLOPE = 0.0",
        f"{LAYOUT}test_numbers_that_overflow_stay_what_they_are[activation]",
    ),
    Mutant(
        "NaN that is lost where it is pooled",
        BLOCKED,
        "torch.stack([outputs.sum(), *marks])",
        "torch.stack([outputs.sum()])",
        f"{LAYOUT}"
        "test_one_pixel_that_is_no_number_is_not_lost_where_the_largest_is_taken",
    ),
    Mutant(
        "a convolution with a ReLU in it that another layer reads without",
        BLOCKED,
        "if len(users) != 1 or _kind(users[0]) not in kinds:",
        "if _kind(users[0]) not in kinds:",
        f"{LAYOUT}test_outputs_are_those_of_the_model_wherever_its_weights_move[Residual]",
    ),
    Mutant(
        "hooks that are lost",
        "diagnostics/_hooks.py",
        '("_forward_hooks", "_forward_pre_hooks")',
        '("_forward_hooks",)',
        f"{LAYOUT}test_other_models_are_refused[pre-hook]",
    ),
    Mutant(
        "recalibration of norms that are parts of convolutions",
        GRID,
        "_LAYOUTS[0 if convolves and not self._recalibrate else 1 :]",
        "_LAYOUTS[0 if convolves else 1 :]",
        f"{LAYOUT}test_recalibrated_norms_and_dense_models_are_not",
    ),
    Mutant(
        "memory that is fetched anew for every tensor",
        GRID,
        '    torch.empty(_LARGEST_KEPT, dtype=torch.uint8, device="cpu")\n',
        "    torch.empty(0, dtype=torch.uint8)\n",
        f"{LAYOUT}test_freed_memory_is_not_fetched_anew",
    ),
    Mutant(
        "weights that functional_call does not reach, taken for those it does",
        FUNCTIONAL,
        "return any(g is not None for g in found)",
        "return False",
        f"{OTHER}test_a_gauss_newton_matrix_of_such_weights_is_refused[Partly]",
    ),
    Mutant(
        "casts of an autocast region that outlive the move",
        OBJECTIVE,
        "            torch.clear_autocast_cache()\n            yield\n",
        "            yield\n",
        f"{OTHER}test_an_autocast_region_around_a_measurement_is_one_inside_of_forward",
    ),
    Mutant(
        "the fast path of transformers in passes without a gradient",
        STILL,
        "set_fastpath_enabled(False)",
        "set_fastpath_enabled(True)",
        f"{OTHER}test_losses_and_gradients_of_a_transformer_are_of_one_function",
    ),
    Mutant(
        "second derivatives of torch's weight normalisation",
        PRODUCTS,
        "weight_norm_by_hand if by_hand else nullcontext",
        "nullcontext",
        f"{OTHER}test_the_hessian_of_normed_weights_is_that_of_differences[weight_norm0]",
    ),
    Mutant(
        "a way that is compared at a point where nothing moves",
        AGREEMENT,
        "    moved = [c for c in away if any(c)] or away\n",
        "    moved = away[:1]\n",
        f"{TOLD}test_only_points_close_by_need_one_further_out",
    ),
    Mutant(
        "points that are too close to tell ways apart",
        AGREEMENT,
        "        if found.tells or not start or not losses[-1].isfinite():\n",
        "        if k:\n",
        f"{TOLD}test_only_points_close_by_need_one_further_out",
    ),
    Mutant(
        "functions of the user's that are called from threads",
        GRID,
        'if how == "auto" and _may_share(self._objective):',
        "if False:",
        f"{TOLD}test_what_a_hook_keeps_is_of_the_point_that_is_measured",
    ),
    Mutant(
        "a file of another criterion's losses",
        "diagnostics/_sweep.py",
        "for x in [*own, _losses(objective)]:",
        "for x in own:",
        f"{FILES}test_a_file_of_another_loss_is_refused[options-10]",
    ),
    Mutant(
        "buffers that are written to through data and stay so",
        STILL,
        "[(x, value) for x, value in kept if differs(x, value)]",
        "[(x, v) for x, v in kept if differs(x, v) and x._version > 0]",
        "tests/diagnostics/test_still.py::"
        "test_buffers_that_are_written_to_through_data_are_as_before",
    ),
    Mutant(
        "a direction to a model whose frozen weights are others",
        "diagnostics/directions.py",
        "    _check_frozen(ours, theirs)\n",
        "",
        "tests/diagnostics/test_directions.py::"
        "test_a_model_with_other_frozen_weights_is_refused[module]",
    ),
    Mutant(
        "gradients of batches that are added up in float32",
        OBJECTIVE,
        "return torch.promote_types(dtype, torch.float64)",
        "return dtype",
        "tests/diagnostics/test_objective.py::"
        "test_gradients_of_many_batches_in_float32_lose_nothing",
    ),
    Mutant(
        "a measurement around w + eps",
        OBJECTIVE,
        "            guards.check_weights(self.model, self.w)\n"
        "            guards.check_home(self.model)\n",
        "            guards.check_weights(self.model, self.w)\n",
        "tests/diagnostics/test_objective.py::"
        "test_weights_that_a_loop_has_moved_are_not_measured",
    ),
]
