"""More defects in the replay: of what kinds of state, and at which end of a pass."""

from tests.mutants.mutant import Mutant

HOLDERS = "optim/_holders.py"
SNAPSHOT = "optim/_snapshot.py"
COPY = "optim/_tensor_copy.py"
FROZEN = "optim/_frozen.py"
TRAINED = "optim/_trained.py"
LAZY = "optim/_lazy.py"
MODEL = "optim/_model_replay.py"
CHECK = "optim/_check_replay.py"
WEIGHTS = "optim/_weights.py"

STATE = "tests/optim/test_module_state.py::"
REACHED = "tests/optim/test_reached_state.py::"
LEADS = f"{REACHED}test_a_step_leaves_state_as_one_pass_does"
KIND = f"{STATE}test_a_step_leaves_state_as_one_pass_does"
ODD = "tests/optim/test_odd_buffers.py::"
MODULES = "tests/optim/test_odd_modules.py::"
LIMITS = "tests/optim/test_module_limits.py::"
CHANGED = "tests/optim/test_trained_weights.py::"
FREEZE = "tests/optim/test_frozen_parameters.py::"
REPLAYED = "tests/optim/test_check_replay.py::"

REWINDING = [
    Mutant(
        "attributes of the last pass kept",
        MODEL,
        "        self._end.put()\n",
        "",
        f"{KIND}[float]",
    ),
    Mutant(
        "an attribute that appears stays",
        HOLDERS,
        "                del d[name]\n",
        "                pass\n",
        f"{KIND}[appears]",
    ),
    Mutant(
        "tuples not looked into",
        SNAPSHOT,
        "isinstance(x, tuple | frozenset | partial | MethodType)",
        "isinstance(x, frozenset | partial | MethodType)",
        f"{KIND}[tuple]",
    ),
    Mutant(
        "what an object is called by not looked into",
        SNAPSHOT,
        "isinstance(x, tuple | frozenset | partial | MethodType)",
        "isinstance(x, tuple | frozenset | partial)",
        f"{LEADS}[bound method]",
    ),
    Mutant(
        "keys of dicts not looked into",
        HOLDERS,
        "changeable(chain(self._then, self._then.values()))",
        "changeable(self._then.values())",
        f"{LEADS}[key of a dict]",
    ),
    Mutant(
        "members of sets not looked into",
        SNAPSHOT,
        "compare=True, children=members)",
        "compare=True)",
        f"{LEADS}[member of a set]",
    ),
    Mutant(
        "attributes of containers not looked into",
        SNAPSHOT,
        "                self._follow(_attributes_of_container(x), depth)\n",
        "",
        f"{LEADS}[attribute of a list]",
    ),
    Mutant(
        "private slots under the name in the source",
        HOLDERS,
        "if private else name",
        "if not private else name",
        f"{LEADS}[private slot]",
    ),
    Mutant(
        "hooks not looked into",
        HOLDERS,
        "*self.values[:-4], *called)",
        "*self.values[:-4])",
        f"{REACHED}test_the_state_of_a_hook_is_that_of_one_pass[forward]",
    ),
    Mutant(
        "hooks stay as the last pass leaves them",
        HOLDERS,
        "[d[name] for name in _HOOKS if attributes]",
        "[]",
        f"{REACHED}test_a_hook_that_a_pass_registers_is_there_once",
    ),
    Mutant(
        "flags of hooks stay",
        HOLDERS,
        "chain(registered, self._flags)",
        "registered",
        f"{REACHED}test_a_hook_that_removes_itself_is_there_for_every_pass",
    ),
    Mutant(
        "parameters unfrozen in the loop descend as without SAM",
        "optim/_engine.py",
        "            _check_same_trained(step)\n",
        "",
        f"{CHANGED}test_a_parameter_that_is_unfrozen_in_the_loop_is_refused[body]",
    ),
    Mutant(
        "what is appended to a long list stays",
        HOLDERS,
        "        del self._content[self._size :]\n",
        "",
        f"{LIMITS}test_what_is_appended_to_a_long_list_is_taken_off_again",
    ),
    Mutant(
        "the trainer rewound",
        SNAPSHOT,
        "            id(v) in self._roots or",
        "            False or",
        f"{LIMITS}test_the_owner_of_a_model_is_no_part_of_its_state",
    ),
    Mutant(
        "a module around the model rewound",
        SNAPSHOT,
        "if not registered and any(id(m) in self._roots for m in x.modules()):",
        "if False:",
        f"{LIMITS}test_a_module_around_the_model_is_no_part_of_its_state",
    ),
    Mutant(
        "the books of a wrapper rewound",
        SNAPSHOT,
        "attributes=not _is_wrapper(x)",
        "attributes=True",
        f"{ODD}test_a_wrapper_keeps_its_own_books",
    ),
    Mutant(
        "an optimizer inside goes on from the first pass",
        SNAPSHOT,
        "        return isinstance(x, _TRAINS)\n",
        "        return False\n",
        f"{KIND}[optimizer]",
    ),
    Mutant(
        "a lazy module starts the second pass with the first one's buffers",
        MODEL,
        "        for copy in self._late:\n            copy.load()\n",
        "",
        f"{MODULES}test_lazy_modules_train_as_those_that_were_made_before[True]",
    ),
    Mutant(
        "other masks after a lazy module",
        LAZY,
        "            self._streams.set(self._states[module])\n",
        "            pass\n",
        f"{MODULES}test_lazy_modules_train_as_those_that_were_made_before[True]",
    ),
    Mutant(
        "the stream jumps back at every use of a lazy module",
        LAZY,
        "        self._hooks.pop(module).remove()\n        if",
        "        if",
        f"{MODULES}test_a_lazy_module_used_twice_goes_on_from_its_first_use",
    ),
    Mutant(
        "a buffer of inference mode not rewound",
        COPY,
        "                    t.copy_(v)\n",
        "                    pass\n",
        f"{ODD}test_a_buffer_made_in_inference_mode_is_rewound",
    ),
    Mutant(
        "a weight made of parts drawn for from the user's stream",
        WEIGHTS,
        "        streams.rewind()\n",
        "        pass\n",
        f"{ODD}test_a_weight_made_of_parts_comes_back_bit_for_bit",
    ),
    Mutant(
        "a large teacher never looked at",
        FROZEN,
        "if self._watched and self._steps & (self._steps - 1) == 0:",
        "if False:",
        f"{FREEZE}test_a_large_teacher_follows_once_from_the_first_step_on[by_data]",
    ),
    Mutant(
        "all frozen weights copied in every step",
        FROZEN,
        "self._steps & (self._steps - 1) == 0:",
        "self._steps > 0:",
        f"{FREEZE}test_large_frozen_parameters_are_copied_for_a_look_alone",
    ),
    Mutant(
        "a trained weight that stays at w changed twice",
        TRAINED,
        "        self._end.load()\n",
        "        pass\n",
        f"{CHANGED}test_a_weight_that_stays_at_w_is_changed_once_too",
    ),
    Mutant(
        "a change at w + eps lost without a word",
        TRAINED,
        "        if self._weights.touched:\n",
        "        if False:\n",
        f"{CHANGED}test_a_change_of_a_moved_weight_in_the_first_pass_is_refused",
    ),
    Mutant(
        "the check leaves its hooks",
        CHECK,
        "                hook.remove()\n",
        "                pass\n",
        f"{REPLAYED}test_hooks_are_removed_however_the_loop_is_left[1]",
    ),
    Mutant(
        "the check looks at the last module first",
        CHECK,
        "    for a, b in zip(first, second, strict=False):\n",
        "    for a, b in reversed(list(zip(first, second, strict=False))):\n",
        f"{REPLAYED}test_the_module_that_differs_is_named",
    ),
    Mutant(
        "the check overlooks gradients",
        CHECK,
        "if place is None and not _alike(g, second.gradients[name]):",
        "if False:",
        f"{REPLAYED}test_a_gradient_that_differs_is_named_so",
    ),
    Mutant(
        "the check's own pass counts",
        "optim/_engine.py",
        "rewound = log.passes > 0 or self._check is not None",
        "rewound = log.passes > 0",
        f"{REPLAYED}test_a_model_whose_state_is_rewound_passes_and_trains_as_without",
    ),
    Mutant(
        "the check hooks a module that makes its parameters",
        CHECK,
        "            if name not in self._unmade\n",
        "",
        f"{MODULES}test_modules_that_are_made_pass_the_check_of_the_replay",
    ),
    Mutant(
        "a loop that broke off leaves its hooks in modules without parameters",
        "optim/_engine.py",
        "                else:\n                    replay.stop()\n",
        "",
        f"{MODULES}test_a_loop_that_broke_off_before_parameters_were_made_leaves"
        "_no_hook",
    ),
]
