"""Defects of what brings a model's state back between passes."""

from tests.mutants.mutant import Mutant

HOLDERS = "optim/_holders.py"
COPY = "optim/_tensor_copy.py"
FROZEN = "optim/_frozen.py"
MODEL = "optim/_model_replay.py"

STATE = "tests/optim/test_module_state.py::test_a_step_leaves_state_as_one_pass_does"
ODD = "tests/optim/test_odd_buffers.py::"
MODULES = "tests/optim/test_odd_modules.py::"
TEACHER = "tests/optim/test_frozen_parameters.py::"
CHECK = "tests/optim/test_check_replay.py::"

REPLAY_DEFECTS = [
    Mutant(
        "an attribute of the first pass seen by the second",
        HOLDERS,
        "            if d.get(name, _NOTHING) is not value:\n",
        "            if False:\n",
        f"{STATE}[int]",
    ),
    Mutant(
        "an attribute that the first pass made seen by the second",
        HOLDERS,
        "            for name in d.keys() - MACHINERY - set(self._names):\n",
        "            for name in ():\n",
        f"{STATE}[appears]",
    ),
    Mutant(
        "a list of the first pass seen by the second",
        HOLDERS,
        "        kind.extend(self._content, self._then)\n",
        "        kind.extend(self._content, [*self._then, *self._then])\n",
        f"{STATE}[list]",
    ),
    Mutant(
        "a dict of the first pass seen by the second",
        HOLDERS,
        "        kind.clear(self._content)\n        for key",
        "        for key",
        f"{STATE}[dict]",
    ),
    Mutant(
        "a generator of a module drawn from twice",
        HOLDERS,
        "        self._write(self._then)\n",
        "        pass\n",
        f"{STATE}[torch generator]",
    ),
    Mutant(
        "a tensor attribute changed twice",
        MODEL,
        "        self._frozen.begin(_others(now, trained), trained)\n",
        "        self._frozen.begin([], trained)\n",
        f"{STATE}[tensor in place]",
    ),
    Mutant(
        "a buffer that keeps the dtype of the first pass",
        COPY,
        "        t.data = torch.empty_like(value)\n",
        "        pass\n",
        f"{ODD}test_a_buffer_that_changes_its_dtype_changes_it_once",
    ),
    Mutant(
        "attributes of TorchScript seen by the second pass",
        HOLDERS,
        "            if not _alike(value, current):\n",
        "            if False:\n",
        f"{MODULES}test_scripted_parts_are_left_as_one_pass_leaves_them",
    ),
    Mutant(
        "a teacher that follows to w + eps",
        FROZEN,
        "        self._start.load()\n        self._looked.load()\n"
        "        self._end.load()\n",
        "        self._end.load()\n",
        f"{TEACHER}test_a_teacher_that_starts_as_its_student_does_not_follow_to_w_eps"
        "[in_place]",
    ),
    Mutant(
        "a teacher that follows twice",
        FROZEN,
        "        self._start.load()\n        self._looked.load()\n\n",
        "        pass\n\n",
        f"{TEACHER}test_a_teacher_follows_once[by_data]",
    ),
    Mutant(
        "a change without a copy let through",
        FROZEN,
        "        if lost:\n",
        "        if False:\n",
        f"{TEACHER}test_a_change_of_which_there_is_no_copy_is_refused",
    ),
    Mutant(
        "a later change without a copy let through",
        FROZEN,
        "        if late:\n",
        "        if False:\n",
        f"{TEACHER}test_a_change_in_a_later_pass_of_which_there_is_no_copy_is_refused",
    ),
    Mutant(
        "a check that sees no difference",
        "optim/_check_replay.py",
        "        if not _alike(a.result, b.result):\n",
        "        if False:\n",
        f"{CHECK}test_the_module_that_differs_is_named",
    ),
]
