"""Defects of methods and of what they remember, and the tests they must turn red."""

from tests.mutants.mutant import Mutant

CHOSEN = "tests/methods/test_reference_chosen.py::"
STRETCH = "tests/methods/test_reference_stretch.py::"
POSTERIOR = "tests/methods/test_reference_posterior.py::"
CHECKPOINT = "tests/distributed/test_checkpoint_methods.py::"
SCOPE = "tests/optim/test_scope.py::"
DOORS = "tests/methods/test_contract_doors.py::"
ARGUMENTS = "tests/methods/test_arguments.py::"
NEVER = "tests/methods/test_never_perturbs.py::"
POINTS = "tests/methods/test_reference_points.py::"
STATISTICS = "tests/methods/test_statistics.py::"
FAMILY = "tests/methods/test_family.py::"
SOURCE = "tests/methods/test_reference_source.py::"
DECLARED = "tests/core/test_declared.py::"
ADAPTERS = "tests/methods/test_reference_adapters.py::"
PARTS = "tests/methods/test_reference_parts.py::"

METHODS = [
    Mutant(
        "a step that is stretched where the gradient is large",
        "core/stretch.py",
        "else 1 - x for x in largest",
        "else x for x in largest",
        f"{STRETCH}test_ire_equals_its_formula[0.5-0.1-3-0-sgd-one]",
    ),
    Mutant(
        "a weight without rank that is not stretched",
        "core/stretch.py",
        "else torch.ones_like(g.abs())",
        "else torch.zeros_like(g.abs())",
        f"{STRETCH}test_a_layer_without_a_gradient_when_ranked_is_stretched_when_it_"
        "has_one",
    ),
    Mutant(
        "examples of the lowest loss",
        "core/_batch.py",
        "best = values.topk(",
        "best = (-values).topk(",
        f"{CHOSEN}test_k_sam_equals_its_formula[0.25-3-sgd-one]",
    ),
    Mutant(
        "a radius that matches nothing",
        "core/examples.py",
        "[ratio * r for r in rho]",
        "rho",
        f"{CHOSEN}test_a_matched_ascent_equals_its_formula[0.25-3-0.9-sgd-one]",
    ),
    Mutant(
        "examples ranked by loss and not by its rise",
        "core/examples.py",
        "highest(after - before, self.gamma)",
        "highest(after, self.gamma)",
        f"{CHOSEN}test_esam_equals_its_formula[0.5-0.5-6-sgd-one]",
    ),
    Mutant(
        "a perturbation that does not grow as tensors stay",
        "core/examples.py",
        "[r / self.beta for r in of_group(step)]",
        "of_group(step)",
        f"{CHOSEN}test_esam_moves_each_tensor_with_its_probability_and_always_as_far",
    ),
    Mutant(
        "a forward pass that builds a graph",
        "optim/_engine.py",
        "return torch.no_grad()",
        "return nullcontext()",
        f"{CHOSEN}test_only_a_pass_for_losses_alone_has_no_graph",
    ),
    Mutant(
        "a mask by gradients and not by their squares",
        "core/sparse.py",
        "else g * g",
        "else g",
        f"{CHOSEN}test_sparse_sam_equals_its_formula[0.5-4-5-1-sgd-one]",
    ),
    Mutant(
        "a climb that begins at w in every step",
        "core/nested.py",
        "_higher(Climb.climb(step, g, rho), here, z)",
        "_higher(Climb.climb(step, g, rho), here, here)",
        f"{CHOSEN}test_lookbehind_sam_equals_its_formula[2-0.5-sgd-one]",
    ),
    Mutant(
        "all of the way kept",
        "core/nested.py",
        "            step.memory.pull(slow, [self.alpha] * len(slow))\n",
        "            pass\n",
        f"{CHOSEN}test_lookbehind_sam_equals_its_formula[2-0.5-sgd-one]",
    ),
    Mutant(
        "noise that stays in the second gradient",
        "core/posterior.py",
        "None if x is None else r * x / t for r, x, t in zip(radii, g, s, strict=True)",
        "None if x is None else r * x / t + t.rsqrt() / 9 for r, x, t in "
        "zip(radii, g, s, strict=True)",
        f"{POSTERIOR}test_bsam_equals_its_formula[one]",
    ),
    Mutant(
        "a variance taken for a deviation",
        "core/posterior.py",
        "z_i * (n * t).rsqrt()",
        "z_i / (n * t)",
        f"{POSTERIOR}test_bsam_equals_its_formula[one]",
    ),
    Mutant(
        "a running mean that micro-batches add up",
        "optim/_checks.py",
        "if not method.traits.adds_up:",
        "if False:",
        f"{DOORS}test_what_holds_a_running_mean_is_not_added_up[False]",
    ),
    Mutant(
        "the other side of w taken for the perturbation",
        "core/programs.py",
        "return ascent and Point(tuple(vec.times(-1.0, ascent.eps)))",
        "return ascent and ascent._replace(eps=tuple(vec.times(-1.0, ascent.eps)))",
        f"{STATISTICS}test_statistics_are_those_of_w_and_of_the_perturbation[cr_sam]",
    ),
    Mutant(
        "the perturbation of GAM taken for a stop on the way",
        "core/programs.py",
        "g2 = yield Ask(far, alone=True)",
        "g2 = yield Ask(_beside(None, far), alone=True)",
        f"{STATISTICS}test_the_perturbation_of_gam_is_along_the_change_of_the_gradient",
    ),
    Mutant(
        "the end of many steps taken for a stop on the way",
        "core/programs.py",
        "return (yield Ask(ascent))\n\n\ndef _further",
        "return (yield Ask(ascent and Point(ascent.eps)))\n\n\ndef _further",
        f"{STATISTICS}test_the_perturbation_of_many_steps_is_where_the_last_one_ends",
    ),
    Mutant(
        "sharpness between losses of different examples",
        "optim/_statistics.py",
        "same_loss=self._at_w.loss_of(batch)",
        "same_loss=self._at_w.loss()[1]",
        f"{STATISTICS}"
        "test_statistics_are_those_of_w_and_of_the_perturbation[subset_sam]",
    ),
    Mutant(
        "a cosine with the last gradient at w",
        "optim/_statistics.py",
        "first = self._here is self._at_w and not self._here.g",
        "first = self._here is self._at_w",
        f"{STATISTICS}"
        "test_statistics_are_those_of_w_and_of_the_perturbation[sparse_sam]",
    ),
    Mutant(
        "a loop that runs on all examples where a part is wanted",
        "optim/_probe.py",
        "        if self._takes:\n",
        "        if False:\n",
        f"{DOORS}test_a_closure_that_tells_too_little_is_refused[subset_sam]",
    ),
    Mutant(
        "a method's passes at the price of a radius of zero",
        "core/_method.py",
        "return self(step) if moves else plain()",
        "return self(step)",
        "tests/methods/test_family.py::"
        "test_without_a_radius_a_step_is_that_of_the_base_at_its_price[cr_sam]",
    ),
    Mutant(
        "one radius for all groups in the second-order term",
        "core/programs.py",
        "scaled = vec.times_each(step.per_parameter(rho), g_eps)",
        "scaled = vec.times(max(rho), g_eps)",
        f"{POINTS}test_second_order_sam_is_autograd_through_its_objective[rhos1]",
    ),
    Mutant(
        "one ball around groups of several radii",
        "core/programs.py",
        "[1 / r if r else 0.0 for r in rho]",
        "[1 / max(rho) for r in rho]",
        f"{POINTS}test_many_steps_stay_in_the_ball_of_several_radii[rhos1]",
    ),
    Mutant(
        "traits of a source around a source forgotten",
        "core/_method.py",
        "found = [part.traits for part in parts if isinstance(part, Joint)]",
        "found = [part.traits for part in parts[:0] if isinstance(part, Joint)]",
        f"{DECLARED}test_a_source_around_a_source_remembers_for_both",
    ),
    Mutant(
        "a method that flatmin does not export",
        "methods/_family.py",
        '    "zsharp",\n',
        "",
        f"{FAMILY}test_every_method_that_is_written_can_be_found[flatmin.__all__]",
    ),
    Mutant(
        "a method without a row in the table",
        "methods/_family.py",
        '    Entry(zsharp, "2"),\n',
        "",
        f"{FAMILY}test_every_method_that_is_written_can_be_found[METHODS]",
    ),
    Mutant(
        "a step ahead that goes up",
        "methods/_sampa.py",
        '[-float(group["lr"]) for group in step.groups]',
        '[float(group["lr"]) for group in step.groups]',
        f"{SOURCE}test_sampa_over_one_batch_equals_its_formula[0.1-0.2-sgd-one]",
    ),
    Mutant(
        "a function taken for a method",
        "optim/_checks.py",
        "    if not isinstance(method, Method):\n",
        "    if not callable(method):\n",
        "tests/optim/test_refusals.py::"
        "test_a_method_of_another_kind_is_refused_with_the_class_to_write"
        "[returns_nothing]",
    ),
    Mutant(
        "a distributed checkpoint without what methods remember",
        "optim/_shared.py",
        "            self._memory.complete(content, self.method)\n",
        "            pass\n",
        f"{CHECKPOINT}test_a_number_that_is_not_yet_noted_is_nan_on_the_way",
    ),
    Mutant(
        "NaN taken for what was remembered",
        "optim/_shared.py",
        "        self._memory.clear_blanks()\n",
        "",
        f"{CHECKPOINT}test_what_is_not_yet_remembered_is_nan_on_the_way_and_nothing_after",
    ),
    Mutant(
        "waiting for a process that has left",
        "core/_scope.py",
        "if any(replica._join_config.enable for replica in averaged):",
        "if False:",
        f"{SCOPE}test_join_is_refused_where_it_cannot_stand_in",
    ),
    Mutant(
        "an open end that belongs to its interval",
        "core/_checks.py",
        "else low < x",
        "else low <= x",
        f"{ARGUMENTS}test_a_number_out_of_range_is_refused_by_name[vasso-theta-0.0]",
    ),
    Mutant(
        "a fraction taken for a count",
        "core/_checks.py",
        "or not isinstance(value, int):",
        "or not isinstance(value, int | float):",
        f"{ARGUMENTS}test_a_count_that_is_no_int_is_refused_by_name"
        "[2.5-interval_sam-k]",
    ),
    Mutant(
        "a last part that no step is in",
        "core/gates.py",
        "    if first >= steps:\n",
        "    if first > steps:\n",
        f"{ARGUMENTS}test_a_training_too_short_for_its_last_part_is_refused[3]",
    ),
    Mutant(
        "SAM's options of which a method sets one",
        "optim/_options.py",
        "    track: bool\n",
        "    track: bool\n    p: float\n",
        f"{ARGUMENTS}test_an_unknown_option_is_refused_in_the_name_of_the_method"
        "[p-gam]",
    ),
    Mutant(
        "a method that is not explained",
        "methods/_mix.py",
        "@explained\ndef sagm(",
        "def sagm(",
        "tests/optim/test_foreign.py::"
        "test_every_method_answers_a_call_with_parameters[sagm]",
    ),
    Mutant(
        "an unknown argument for the base",
        "optim/_call.py",
        "if name in base.defaults]",
        "]",
        "tests/optim/test_foreign.py::"
        "test_an_argument_that_nobody_has_is_told_what_there_is",
    ),
    Mutant(
        "a slope radius that moves with rho",
        "core/programs.py",
        "[self.slope_rho if r else 0.0 for r in rho]",
        "[self.slope_rho * r / rho[0] for r in rho]",
        f"{POINTS}test_gam_equals_its_formula[0.2-0.02-mixture0-sgd-two]",
    ),
    Mutant(
        "sam_on around layers that do not train",
        "methods/_fit.py",
        'for p in group["params"] if p.requires_grad',
        'for p in group["params"]',
        f"{NEVER}test_sam_on_needs_layers_that_train",
    ),
    Mutant(
        "asam where nothing is scaled",
        "methods/_fit.py",
        'if names and not any("weight" in name for name in names):',
        "if not names:",
        f"{NEVER}test_asam_needs_a_parameter_to_scale",
    ),
    Mutant(
        "momentum_sam around SGD without momentum",
        "methods/_source.py",
        "    check_momentum(base)\n",
        "",
        f"{NEVER}test_momentum_sam_needs_momentum[SGD]",
    ),
    Mutant(
        "momentum_sam that never finds a momentum",
        "core/sources.py",
        "if step.index and all(v is None for v in found):",
        "if False:",
        f"{NEVER}test_a_state_without_momentum_is_refused_in_the_second_step[Adagrad]",
    ),
    Mutant(
        "a filter that matches nothing",
        "core/filters.py",
        "    if not any(moves):\n",
        "    if False:\n",
        f"{NEVER}test_a_filter_that_matches_nothing_names_what_there_is[named]",
    ),
    Mutant(
        "a former name that blames the package",
        "methods/_mix.py",
        "stacklevel=3",
        "stacklevel=2",
        f"{ARGUMENTS}test_the_former_name_of_the_penalty_warns_and_is_the_same",
    ),
    Mutant(
        "an experiment under a former name that no longer opens",
        "methods/_family.py",
        'RENAMED = {"pnm": "gnp"}',
        "RENAMED: dict[str, str] = {}",
        f"{ARGUMENTS}test_former_names_lead_to_methods",
    ),
    Mutant(
        "noise as long as the frozen weight and not as the adapted one",
        "core/_adapted.py",
        "            for s, b, a in self.factors:\n",
        "            for s, b, a in self.factors[:0]:\n",
        f"{ADAPTERS}test_flat_lora_equals_its_formula[False-Plain-sgd]",
    ),
    Mutant(
        "one deviation for all outputs of a transposed weight",
        "core/adapters.py",
        "sigma if layer.turned else sigma[:, None]",
        "sigma.mean() if layer.turned else sigma[:, None]",
        f"{ADAPTERS}test_flat_lora_equals_its_formula[False-Gpt2Like-sgd]",
    ),
    Mutant(
        "frozen weights that stay where they are",
        "optim/_weights.py",
        "        _add_(moved[len(at) :], [e for _, e in frozen], seed, len(at))\n",
        "",
        "tests/methods/test_adapters.py::"
        "test_the_frozen_weights_of_adapted_layers_move_and_nothing_else",
    ),
    Mutant(
        "a moved weight taken for one that the forward pass changes",
        "optim/_engine.py",
        "[*step.w, *(p for p, _ in ask.at.frozen)]",
        "step.w",
        "tests/methods/test_adapters.py::"
        "test_weights_too_large_to_be_copied_in_every_step_may_move",
    ),
    Mutant(
        "the rest of the loss climbed too",
        "core/parts.py",
        'asks.append(program.send((yield replace(asks.pop(), part="flat"))))',
        "asks.append(program.send((yield asks.pop())))",
        f"{PARTS}test_part_sam_is_imb_sam_on_the_rare_classes[sgd]",
    ),
    Mutant(
        "a penalty in both parts of the loss",
        "core/_decay.py",
        '    if ask.part == "rest":\n        return g\n',
        "",
        "tests/methods/test_parts.py::test_the_penalty_of_weight_decay_counts_once",
    ),
    Mutant(
        "a factor of the radius that does not show",
        "core/radii.py",
        'return f"times({self.c})"',
        'return "times"',
        f"{ARGUMENTS}test_the_interval_shows_the_factor_of_its_radius",
    ),
]
