"""Defects of methods and of what they remember, and the tests they must turn red."""

from tests.mutants.mutant import Mutant

CHOSEN = "tests/methods/test_reference_chosen.py::"
POSTERIOR = "tests/methods/test_reference_posterior.py::"
CHECKPOINT = "tests/distributed/test_checkpoint_methods.py::"
SCOPE = "tests/optim/test_scope.py::"
DOORS = "tests/methods/test_contract_doors.py::"

METHODS = [
    Mutant(
        "examples of the lowest loss",
        "core/_program.py",
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
        "highest(after - before, self.examples)",
        "highest(after, self.examples)",
        f"{CHOSEN}test_esam_equals_its_formula[0.5-0.5-6-sgd-one]",
    ),
    Mutant(
        "a perturbation that does not grow as tensors stay",
        "core/examples.py",
        "[r / self.weights for r in of_group(step)]",
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
        "            step.memory.pull(slow, self.alpha)\n",
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
        'if not getattr(method, "adds_up", True):',
        "if False:",
        f"{DOORS}test_what_holds_a_running_mean_is_not_added_up[False]",
    ),
    Mutant(
        "a distributed checkpoint without what methods remember",
        "optim/_sam.py",
        "        self._memory.complete(content, self.method)\n",
        "",
        f"{CHECKPOINT}test_a_new_optimizer_continues_bit_for_bit[looksam-5]",
    ),
    Mutant(
        "NaN taken for what was remembered",
        "optim/_sam.py",
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
]
