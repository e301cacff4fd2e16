"""Defects of what guards gradients, identities, bases and wrappers."""

from tests.mutants.mutant import Mutant

SAM = "optim/_sam.py"
SHARED = "optim/_shared.py"
GUARD = "optim/_guard.py"
CLOSURE = "optim/_closure.py"
STATES = "optim/_states.py"
MEMORY = "optim/_memory.py"

GUARDS = "tests/optim/test_guard.py::"
GRADIENTS = "tests/optim/test_closure_gradients.py::"
IDENTITIES = "tests/optim/test_identities.py::"
WRAPPED = "tests/optim/test_wrapped_bases.py::"
OUTSIDE = "tests/optim/test_outside.py::"
ATTACH = "tests/distributed/test_attach.py::"
CHECKPOINT = "tests/distributed/test_checkpoint_methods.py::"

GUARD_DEFECTS = [
    Mutant(
        "micro-batches lost in a loop without accumulate",
        GUARD,
        "    if progress.ready and not are_zero(",
        "    if False and not are_zero(",
        f"{GUARDS}test_with_a_scaler_a_forgotten_step_is_found",
    ),
    Mutant(
        "a plain backward lost in a loop",
        GUARD,
        "    if not are_zero(found):\n",
        "    if False:\n",
        f"{GUARDS}test_a_plain_backward_before_the_loop_is_refused",
    ),
    Mutant(
        "a skipped step taken for a lost gradient",
        GUARD,
        "    if progress.ready and _was_skipped(progress):\n",
        "    if False:\n",
        f"{GUARDS}test_a_step_that_the_scaler_skipped_is_no_lost_gradient[True-sam]",
    ),
    Mutant(
        "a second SAM overwrites the gradient of the first",
        GUARD,
        "    if any(is_in_place(other, mine) for other in others):\n",
        "    if False:\n",
        f"{GUARDS}"
        "test_a_second_sam_must_not_overwrite_the_gradient_of_the_first[False]",
    ),
    Mutant(
        "accumulating onto a used gradient",
        GUARD,
        "    if any(p.grad is not None and _has(_USED, p.grad) for p in w):\n",
        "    if False:\n",
        f"{GUARDS}test_accumulating_onto_the_gradient_of_the_last_step_is_refused",
    ),
    Mutant(
        "a step along nothing",
        "optim/_shared.py",
        "        ready = progress.ready and not is_cleared(progress)\n",
        "        ready = progress.ready\n",
        f"{GUARDS}test_a_step_after_the_gradient_was_cleared_is_refused[model]",
    ),
    Mutant(
        "gradients on entry dropped",
        CLOSURE,
        "if self._is_kept(p, zeros)]",
        "if False]",
        f"{GRADIENTS}test_gradients_that_the_closure_does_not_clear_are_refused",
    ),
    Mutant(
        "a finished loop thrown away for a closure",
        SAM,
        "        if self._progress.ready and not is_cleared(self._progress):\n"
        "            return call",
        "        if False:\n            return call",
        f"{GRADIENTS}test_a_closure_that_makes_gradients_after_a_loop_is_refused[True]",
    ),
    Mutant(
        "a closure overwrites what the loop found",
        CLOSURE,
        "        value = closure()\n    if any(",
        "        value = closure()\n    if False and any(",
        f"{GRADIENTS}test_a_closure_that_makes_gradients_after_a_loop_is_refused[True]",
    ),
    Mutant(
        "a step of the base not counted",
        SHARED,
        "        if self._progress.depth > 0:\n",
        "        if not self._progress.stepping:\n",
        f"{IDENTITIES}test_a_plain_step_of_the_base_counts_and_remembers_nothing",
    ),
    Mutant(
        "a derived base counted twice",
        SHARED,
        "        if self._progress.depth > 0:\n",
        "        if False:\n",
        f"{WRAPPED}test_a_rate_of_none_is_no_trial_step",
    ),
    Mutant(
        "gradients unscaled twice",
        "optim/_scaling.py",
        "    if stage is OptState.UNSCALED:\n",
        "    if False:\n",
        f"{IDENTITIES}"
        "test_gradients_are_unscaled_once_or_the_step_is_refused[sam-base-True]",
    ),
    Mutant(
        "a copy at w + eps",
        SHARED,
        '        self._check_at_w("copied or pickled")\n',
        "",
        f"{IDENTITIES}test_a_copy_at_w_eps_is_refused",
    ),
    Mutant(
        "a state dict at w + eps",
        SHARED,
        '        self._check_at_w("saved")\n',
        "",
        f"{IDENTITIES}test_a_state_dict_at_w_eps_is_refused",
    ),
    Mutant(
        "a copied hook counts for the original",
        "optim/_hooks.py",
        "    def __reduce__(self)",
        "    def reduce(self)",
        f"{IDENTITIES}test_a_copied_hook_does_not_call_the_original[deepcopy]",
    ),
    Mutant(
        "global hooks twice a step",
        SAM,
        "SAM.step.hooked = True",
        "SAM.step.hooked = False",
        "tests/optim/test_base_variants.py::"
        "test_global_step_hooks_see_a_step_once[probes]",
    ),
    Mutant(
        "the old groups after loading",
        STATES,
        "            ours[:] = theirs\n",
        "            pass\n",
        f"{WRAPPED}test_a_resumed_run_is_the_undisturbed_one[4-interval-pair]",
    ),
    Mutant(
        "a memory that is not saved",
        "optim/_bases.py",
        "not states.saves(ps):\n",
        "False:\n",
        f"{WRAPPED}test_a_method_that_remembers_refuses_a_base_that_does_not_save",
    ),
    Mutant(
        "gradients of single examples",
        "optim/_bases.py",
        '        if hasattr(type(one), "grad_samples"):\n',
        "        if False:\n",
        f"{WRAPPED}test_a_base_of_gradients_of_single_examples_is_refused",
    ),
    Mutant(
        "a flat checkpoint forgets",
        SHARED,
        "                self._memory.write_blanks(self.method)\n",
        "",
        f"{CHECKPOINT}"
        "test_a_new_optimizer_remembers_what_was_saved_flat_or_not[looksam-True-sam]",
    ),
    Mutant(
        "NaN of a trial step taken for memory",
        SAM,
        "        self._memory.clear_trial()\n",
        "",
        f"{CHECKPOINT}"
        "test_nothing_remains_of_a_trial_step_after_which_nothing_was_loaded"
        "[friendly_sam-sam]",
    ),
    Mutant(
        "a module outside updated in every pass",
        "optim/_outside.py",
        "    if changed:\n",
        "    if False:\n",
        f"{OUTSIDE}"
        "test_a_module_outside_of_the_model_that_changes_its_buffers_is_refused",
    ),
    Mutant(
        "a wrapper that SAM was not given",
        "optim/_wrapping.py",
        "        if isinstance(wrapper, kinds) and _holds(wrapper, ours):\n",
        "        if False:\n",
        f"{ATTACH}test_a_wrapper_that_sam_was_not_given_is_refused_before_anything_moves"
        "[itself-False]",
    ),
    Mutant(
        "shards that do not say of what",
        "optim/_wrapping.py",
        "    if name is not None:\n",
        "    if False:\n",
        f"{ATTACH}test_shards_in_plain_tensors_are_refused[before]",
    ),
    Mutant(
        "the scope of before the wrapper",
        SAM,
        "        scope = check_scope(self.chosen_scope, model)\n",
        "        scope = self.scope\n",
        f"{ATTACH}test_a_wrapper_that_comes_later_is_as_good[world-False]",
    ),
    Mutant(
        "a loop inside of another SAM's over the same weights",
        GUARD,
        "    if not _in_loops.isdisjoint(mine):\n",
        "    if False:\n",
        f"{GUARDS}test_a_loop_of_another_sam_inside_a_loop_is_refused[1]",
    ),
    Mutant(
        "one pass of a loop unscaled",
        SHARED,
        "            check_not_unscaling()\n",
        "            pass\n",
        "tests/optim/test_amp.py::test_unscaling_one_pass_of_a_loop_is_refused[0]",
    ),
    Mutant(
        "a radius set where nobody reads it",
        SHARED,
        """        if name == "rho" or (""",
        """        if False or (""",
        "tests/optim/test_refusals.py::"
        "test_an_attribute_that_no_step_would_follow_is_not_set[rho]",
    ),
]
