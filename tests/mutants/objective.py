"""Defects of the loss of all data, which every measure reads."""

from tests.mutants.mutant import Mutant

ADDITIVE = "diagnostics/_additive.py"
CRITERION = "diagnostics/_criterion.py"
GRID = "diagnostics/_grid.py"
GUARDS = "diagnostics/_guards.py"
GROUPS = "diagnostics/_m_sharpness.py"
LOSS = "diagnostics/_objective.py"
PRODUCTS = "diagnostics/_products.py"
STILL = "diagnostics/_still.py"

LOSSES = "tests/diagnostics/test_criterion.py::"
REFUSED = "tests/diagnostics/test_criterion_refusals.py::"
OBJECTIVE = "tests/diagnostics/test_objective.py::"
RANKS = "tests/diagnostics/test_distributed.py::"
SHARPNESS = "tests/diagnostics/test_sharpness.py::"

OBJECTIVE_DEFECTS = [
    Mutant(
        "batches count alike in the loss",
        LOSS,
        "                total += loss.total\n"
        "                count += loss.divisor\n"
        "            guards.check_count(count, self._own)\n"
        "        return self.sum(total) / self.divisor\n",
        "                total += loss.mean\n"
        "                count += loss.divisor\n"
        "            guards.check_count(count, self._own)\n"
        "        return self.sum(total) / len(self.sizes)\n",
        f"{OBJECTIVE}test_loss_and_gradient_are_those_of_all_examples_whatever_the_batches",
    ),
    Mutant(
        "class weights that count in the sum and not in what it is divided by",
        CRITERION,
        "    if weight is None:\n",
        "    if True:\n",
        f"{LOSSES}test_loss_and_gradient_are_those_of_one_batch[5+4+3-class weights]",
    ),
    Mutant(
        "ignored targets that count",
        CRITERION,
        'kept = targets != options.get("ignore_index", -100)',
        "kept = torch.ones_like(targets, dtype=torch.bool)",
        f"{LOSSES}test_loss_and_gradient_are_those_of_one_batch[5+4+3-ignored]",
    ),
    Mutant(
        "a mean over examples where torch's is over tokens",
        CRITERION,
        "        return kept.sum()\n",
        "        return torch.tensor(examples_of(targets))\n",
        f"{LOSSES}test_loss_and_gradient_are_those_of_one_batch[5+4+3-tokens]",
    ),
    Mutant(
        "batchmean taken for a mean over all numbers",
        CRITERION,
        '        if options.get("reduction") == "batchmean":\n',
        "        if False:\n",
        f"{LOSSES}test_loss_and_gradient_are_those_of_one_batch[5+4+3-kl]",
    ),
    Mutant(
        "sums that are accepted",
        CRITERION,
        '    if options.get("reduction") == "sum":\n',
        "    if False:\n",
        f"{REFUSED}test_a_loss_that_adds_up_is_refused[criterion0]",
    ),
    Mutant(
        "a loss of torch's in half precision",
        CRITERION,
        "    if not losses.is_floating_point() or losses.dtype.itemsize < 4:\n",
        "    if not losses.is_floating_point():\n",
        f"{REFUSED}test_what_is_no_loss_is_refused[<lambda>-ValueError-"
        "loss is torch.bfloat16, and]",
    ),
    Mutant(
        "a mean that is believed",
        ADDITIVE,
        "        self._see_parts((outputs, targets), loss)\n",
        "",
        f"{REFUSED}test_a_mean_that_is_not_over_examples_is_refused[contrastive]",
    ),
    Mutant(
        "batches that are not compared with one another",
        ADDITIVE,
        "        if self._before is not None:\n",
        "        if False:\n",
        f"{REFUSED}test_single_examples_are_compared_with_their_neighbours",
    ),
    Mutant(
        "a mean of what cannot be cut that is believed",
        ADDITIVE,
        "        if loss.bare:\n",
        "        if False:\n",
        f"{REFUSED}"
        "test_a_mean_of_what_cannot_be_cut_is_refused_and_a_pair_taken_at_its_word",
    ),
    Mutant(
        "data without anything that counts",
        GUARDS,
        "    if not divisor > 0:\n",
        "    if False:\n",
        f"{REFUSED}test_data_that_is_all_ignored_is_refused",
    ),
    Mutant(
        "a divisor that may move with the weights",
        GUARDS,
        "    if not torch.allclose(now, before, rtol=1e-9, atol=0):\n",
        "    if False:\n",
        f"{REFUSED}test_a_divisor_that_moves_with_the_weights_is_refused",
    ),
    Mutant(
        "parameters that were thawed later and do not move",
        LOSS,
        "            guards.check_weights(self.model, self.w)\n",
        "",
        f"{OBJECTIVE}test_other_trainable_parameters_than_at_first_are_refused[thaw]",
    ),
    Mutant(
        "curvature that is NaN",
        PRODUCTS,
        "    if not product.isfinite().all():\n",
        "    if False:\n",
        f"{OBJECTIVE}"
        "test_the_curvature_of_a_loss_without_second_derivatives_is_refused",
    ),
    Mutant(
        "the Gauss-Newton matrix of a loss, which is zero",
        PRODUCTS,
        "if not isinstance(outputs, Tensor) or outputs.dim() == 0:",
        "if not isinstance(outputs, Tensor):",
        f"{OBJECTIVE}test_the_gauss_newton_matrix_of_a_finished_loss_is_refused",
    ),
    Mutant(
        "examples that a sampler repeats",
        GUARDS,
        "    if sampler.total_size > examples:\n",
        "    if False:\n",
        f"{OBJECTIVE}test_examples_that_a_sampler_repeats_are_refused",
    ),
    Mutant(
        "a sampler's part taken for the data",
        GUARDS,
        "    if group is None:\n        raise ValueError(\n",
        "    if False:\n        raise ValueError(\n",
        f"{OBJECTIVE}test_a_part_of_the_data_without_a_group_is_refused",
    ),
    Mutant(
        "spectral norms that are refined while they are measured",
        GUARDS,
        "    if isinstance(module, _SpectralNorm) or older_spectral_norms(module):\n",
        "    if False:\n",
        f"{OBJECTIVE}test_spectral_norms_that_are_refined_in_every_pass_are_refused"
        "[spectral_norm0]",
    ),
    Mutant(
        "losses that are added up in float32",
        CRITERION,
        "        total = losses.sum(dtype=torch.float64)\n"
        "        divisor = self._divisor(",
        "        total = losses.cumsum(0)[-1].sum().double()\n"
        "        divisor = self._divisor(",
        f"{OBJECTIVE}test_sums_over_many_examples_in_float32_lose_nothing",
    ),
    Mutant(
        "each process divides by what its own part divides by",
        LOSS,
        "self.divisor = float(self.sum(self._own.clone()))",
        "self.divisor = float(self._own)",
        f"{RANKS}test_two_processes_divide_by_what_one_does",
    ),
    Mutant(
        "a Hessian weighted by examples",
        PRODUCTS,
        "1 / self.objective.divisor, product)",
        "1 / self.objective.n, product)",
        f"{LOSSES}test_curvature_is_that_of_one_batch[weights and ignored]",
    ),
    Mutant(
        "stacked points divided by examples",
        GRID,
        "        return total / self._own.divisor\n",
        "        return total / self._own.n\n",
        f"{LOSSES}test_points_with_class_weights_are_stacked",
    ),
    Mutant(
        "groups that count alike, whatever is ignored in them",
        GROUPS,
        "    rise, weight = here.unbind(1)\n",
        "    rise, weight = here[:, 0], torch.ones_like(here[:, 1])\n",
        f"{LOSSES}test_groups_count_by_what_their_loss_divides_by"
        "[weights and ignored-2-True]",
    ),
    Mutant(
        "a group without a loss that blames the radius",
        GROUPS,
        "    if not below.isfinite():\n",
        "    if False:\n",
        f"{REFUSED}test_a_group_whose_own_loss_is_nan_does_not_blame_the_radius",
    ),
    Mutant(
        "weights restored by subtraction",
        LOSS,
        "                ts.copy_(w, copies)\n",
        "                ts.add_times_(w, -1.0, x)\n",
        f"{SHARPNESS}test_nothing_of_the_model_changes[sharpness]",
    ),
    Mutant(
        "random streams that move",
        STILL,
        "with torch.random.fork_rng(_accelerators(model)):  # pyright: ignore\n",
        "with torch.enable_grad():\n",
        f"{OBJECTIVE}test_reading_leaves_buffers_and_random_streams_alone",
    ),
    Mutant(
        "all modules in the mode of the model afterwards",
        STILL,
        "            module.training = mode\n",
        "            module.training = modes[0][1]\n",
        "tests/diagnostics/test_still.py::"
        "test_each_module_is_in_its_own_mode_afterwards",
    ),
]
