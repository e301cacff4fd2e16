"""Defects of averages."""

from tests.mutants.mutant import Mutant

AVERAGE = "averaging/_average.py"
LENDING = "averaging/_lending.py"
TENSORS = "averaging/_tensors.py"
KINDS = "averaging/_kinds.py"
GATES = "core/gates.py"
RADII = "core/radii.py"

HERE = "tests/averaging/test_averages.py::"
REFUSED = "tests/averaging/test_refusals.py::"
LENT = "tests/averaging/test_lending.py::"
MISUSED = "tests/averaging/test_misuse.py::"

AVERAGING = [
    Mutant(
        "an average of weights at w + eps",
        AVERAGE,
        '        self._check_at_w("update")\n',
        "",
        f"{REFUSED}test_an_update_at_w_plus_eps_is_refused",
    ),
    Mutant(
        "an average with the statistics of other weights",
        AVERAGE,
        "        self.updates += 1\n        self._statistics = {}\n",
        "        self.updates += 1\n",
        f"{REFUSED}test_statistics_of_other_weights_are_refused[SWA]",
    ),
    Mutant(
        "a refresh that changes modes",
        AVERAGE,
        "            module.training = training\n",
        "            pass\n",
        f"{HERE}test_refresh_leaves_modes_streams_and_buffers",
    ),
    Mutant(
        "a refresh that draws from the training's stream",
        AVERAGE,
        "self._lent_to_model(self._found()), still(self.model):",
        "self._lent_to_model(self._found()):",
        f"{HERE}test_refresh_leaves_modes_streams_and_buffers",
    ),
    Mutant(
        "a training inside of applied() that is lost",
        AVERAGE,
        "        if changed:\n",
        "        if False:\n",
        f"{REFUSED}test_misuse_is_refused",
    ),
    Mutant(
        "averages in bfloat16",
        TENSORS,
        "    return torch.float32 if narrow else dtype\n",
        "    return dtype\n",
        f"{HERE}test_small_moves_of_narrow_weights_are_not_rounded_away",
    ),
    Mutant(
        "a tail without the decay, and no word about it",
        GATES,
        "        if rate < _SPENT * start:\n",
        "        if False:\n",
        "tests/test_schedules.py::test_a_tail_that_does_not_own_the_decay_is_warned_of",
    ),
    Mutant(
        "a ramp from the first step of the training",
        RADII,
        "min((k - at + 1) / steps, 1.0)",
        "min((k + 1) / steps, 1.0)",
        "tests/methods/test_reference_when.py::test_late_subset_sam_equals_its_formula"
        "[0.4-0.25-0.5-3-sgd-one]",
    ),
    Mutant(
        "a mean that counts the first weights twice",
        KINDS,
        "        return 1 / (self.updates + 1)\n",
        "        return 1 / (self.updates + 2)\n",
        f"{HERE}test_swa_is_that_of_torch_with_statistics_of_its_own",
    ),
    Mutant(
        "a loaded average that shares the state's memory",
        TENSORS,
        "t.detach().to(ours[name].device, copy=True)",
        "t.detach().to(ours[name].device)",
        f"{HERE}test_a_loaded_average_shares_no_memory_with_the_state",
    ),
    Mutant(
        "a transfer at w + eps",
        AVERAGE,
        '        self._check_at_w("transfer")\n',
        "",
        f"{MISUSED}test_a_transfer_at_w_plus_eps_is_refused",
    ),
    Mutant(
        "the state of any running average loaded",
        AVERAGE,
        'state.get("kind", kind) != kind',
        "False",
        f"{MISUSED}test_the_state_of_another_kind_is_refused",
    ),
    Mutant(
        "statistics of no batches",
        AVERAGE,
        "if layers and not count:",
        "if False:",
        f"{MISUSED}test_statistics_of_no_batches_are_refused",
    ),
    Mutant(
        "tensors of inference in an average",
        AVERAGE,
        "    @torch.inference_mode(False)\n    def update(",
        "    def update(",
        f"{MISUSED}test_an_average_that_begins_in_inference_mode_goes_on[EMA]",
    ),
    Mutant(
        "a write to every buffer",
        LENDING,
        "    if not weight and _has(t, value):\n        return\n",
        "",
        f"{LENT}test_a_buffer_that_takes_no_writes_is_left_as_it_is[False-expanded-EMA]",
    ),
    Mutant(
        "own weights that end at the first failure",
        LENDING,
        "            failed.append((name, error))\n",
        "            failed.append((name, error))\n            break\n",
        f"{LENT}test_one_parameter_that_is_lost_does_not_cost_the_others",
    ),
    Mutant(
        "own weights in the type that they have by now",
        LENDING,
        "        t.data = value\n",
        "        t.data.copy_(value)\n",
        f"{LENT}test_a_change_of_the_model_within_is_reported_and_undone"
        "[turned_narrow]",
    ),
    Mutant(
        "the tensors of an average that the model still has",
        AVERAGE,
        "        check_same(found, tensors_of(self.model))\n",
        "        tensors_of(self.model)\n",
        f"{MISUSED}test_a_model_that_was_changed_is_refused_before_a_write"
        "[transfer-with_an_adapter-EMA]",
    ),
    Mutant(
        "weights of another model among the latest",
        KINDS,
        "            check_same(self._latest[-1], now)\n",
        "            pass\n",
        f"{MISUSED}test_a_model_that_was_changed_is_refused_before_a_write"
        "[update-with_an_adapter-LAWA]",
    ),
    Mutant(
        "averages that know each other by the model's object",
        AVERAGE,
        "for average in _LENT for t in average._lent)",
        "for average in _LENT for t in average._lent if average.model is self.model)",
        f"{MISUSED}test_averages_see_each_other_through_wrappers"
        "[itself-DataParallel-False]",
    ),
    Mutant(
        "a loaded state of inference",
        AVERAGE,
        "    @torch.inference_mode(False)\n    def load_state_dict(",
        "    def load_state_dict(",
        f"{MISUSED}test_an_average_that_was_loaded_in_inference_mode_goes_on[EMA]",
    ),
    Mutant(
        "an average that stays narrower than the model",
        TENSORS,
        "    return m.to(t.device, wider)\n",
        "    return m.to(t.device)\n",
        f"{HERE}test_an_average_follows_the_model_to_a_wider_type[EMA]",
    ),
    Mutant(
        "a tail whose rates were set by hand, and no word about it",
        GATES,
        "float(self._highest))\n",
        "0.0)\n",
        "tests/test_schedules.py::"
        "test_a_rate_that_was_set_by_hand_is_warned_of_too[number]",
    ),
    Mutant(
        "a mass that rounding makes a step too late",
        GATES,
        "* sums[-1] - rounding\n",
        "* sums[-1]\n",
        "tests/core/test_when_joints.py::"
        "test_the_last_mass_of_equal_rates_is_the_last_part",
    ),
]
