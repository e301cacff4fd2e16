"""Defects of the training loop of the experiments, and the test each must turn red."""

from tests.mutants.mutant import Mutant

BATCHES = "experiments/batches.py"
READERS = "experiments/readers.py"
TRAIN = "experiments/train.py"
STATE = "experiments/state.py"
EVALUATE = "experiments/evaluate.py"
PREPARE = "experiments/prepare.py"
LOG = "experiments/log.py"
TASKS = "experiments/tasks.py"
PLAN = "experiments/compare/plan.py"
RESULTS = "experiments/compare/results.py"

HERE = "tests/experiments/loop/"
FORMULAS = f"{HERE}test_updates.py::test_two_epochs_are_those_of_the_formulas"
PLANS = "tests/experiments/compare/test_plan.py::"
VERDICTS = "tests/experiments/compare/test_verdict.py::"
TWIN = f"{HERE}test_twin.py::"
RESUMED = f"{HERE}test_resume.py::test_a_run_that_is_left_by_an_exception_ends_alike"

EXPERIMENTS = [
    Mutant(
        "settings chosen on the test images",
        PLAN,
        '"validation": self.validation,',
        '"validation": 0.0,',
        f"{PLANS}test_a_candidate_is_tested_on_held_out_images_with_noisy_labels",
    ),
    Mutant(
        "settings chosen on cleaner labels than those that are trained",
        PLAN,
        '"noisy_validation": True,',
        '"noisy_validation": False,',
        f"{PLANS}test_a_candidate_is_tested_on_held_out_images_with_noisy_labels",
    ),
    Mutant(
        "SAM at a rate that the base did not choose",
        "experiments/compare/search.py",
        "for one in what.candidates(setting, arm, lr)",
        "for one in what.candidates(setting, arm)",
        "tests/experiments/compare/test_search.py::"
        "test_methods_are_tried_at_the_rate_that_the_base_chose",
    ),
    Mutant(
        "the average of the weights stored as the last weights",
        TRAIN,
        "with self.state.alike():\n                self._store(twin, last)",
        "with self.state.averaged():\n                self._store(twin, last)",
        f"{TWIN}test_both_runs_are_what_trainings_of_their_own_write[plain]",
    ),
    Mutant(
        "a run that is begun mixed with the twin of another",
        TRAIN,
        "return own is None and in_step(folder, twin, kept)",
        "return own is None",
        f"{TWIN}test_a_twin_that_cannot_come_along_is_left_as_it_is[averaged]",
    ),
    Mutant(
        "a training thrown away for that of another's twin",
        TRAIN,
        "return own is None and in_step(folder, twin, kept)",
        "return in_step(folder, twin, kept)",
        f"{TWIN}test_a_twin_that_cannot_come_along_is_left_as_it_is[plain]",
    ),
    Mutant(
        "one training for two choices that differ",
        "experiments/compare/search.py",
        "if one.averaged and not other.averaged and same:",
        "if one.averaged and not other.averaged:",
        "tests/experiments/compare/test_search.py::"
        "test_other_choices_have_trainings_of_their_own",
    ),
    Mutant(
        "a base with fewer gradients than SAM",
        PLAN,
        "if more > tries or longer > epochs:",
        "if more > tries:",
        f"{PLANS}test_a_base_with_fewer_gradients_is_refused",
    ),
    Mutant(
        "a base with fewer tries than SAM",
        PLAN,
        "if more > tries or longer > epochs:",
        "if longer > epochs:",
        f"{PLANS}test_a_base_with_fewer_tries_is_refused",
    ),
    Mutant(
        "the longest schedule taken for the base at its best",
        RESULTS,
        "if row.arm == BASE and not row.longest]",
        "if row.arm == BASE]",
        f"{VERDICTS}test_the_longest_schedule_is_neither_the_base_nor_the_winner",
    ),
    Mutant(
        "a difference recommended that is none",
        "experiments/compare/verdict.py",
        "if rival is winner and gain.shown and gain.mean > 0 else",
        "if rival is winner and gain.mean > 0 else",
        f"{VERDICTS}test_where_the_interval_includes_zero_the_base_is_recommended",
    ),
    Mutant(
        "a checkpoint that may run code",
        STATE,
        "weights_only=True",
        "weights_only=False",
        f"{HERE}test_errors.py::test_a_checkpoint_cannot_run_code",
    ),
    Mutant(
        "every epoch in the same order",
        BATCHES,
        'self._seed("order", epoch)',
        'self._seed("order", 0)',
        f"{HERE}test_batches.py::test_orders_differ_between_epochs_and_seeds[0]",
    ),
    Mutant(
        "seeds that differ above 32 bits alone",
        BATCHES,
        "digest_size=8).digest())",
        "digest_size=3).digest()) << 33",
        f"{HERE}test_batches.py::test_orders_differ_between_epochs_and_seeds[0]",
    ),
    Mutant(
        "all groups augmented alike",
        BATCHES,
        'self._seed("pixels", epoch, step, k)',
        'self._seed("pixels", epoch, step, 0)',
        f"{HERE}test_batches.py::"
        "test_the_same_image_is_augmented_anew_in_every_epoch_and_group",
    ),
    Mutant(
        "an image that fills up is tested",
        BATCHES,
        "torch.where(rows, y, IGNORED)",
        "y",
        f"{HERE}test_batches.py::test_every_image_is_tested_once_and_processes_make_"
        "equally_many_passes[3]",
    ),
    Mutant(
        "a reader of files draws from the network's stream",
        READERS,
        "            generator=Generator(),\n",
        "",
        f"{HERE}test_batches.py::test_files_are_read_as_by_hand_whoever_reads_them"
        "[augments0]",
    ),
    Mutant(
        "readers are started anew for every epoch",
        READERS,
        "            self._idle.append((loader, order))\n",
        "            pass\n",
        f"{HERE}test_readers.py::test_readers_stay_from_one_epoch_to_the_next",
    ),
    Mutant(
        "a reader outlives a process that was killed while the reader started",
        READERS,
        "            worker_init_fn=_begin,\n",
        "",
        f"{HERE}test_readers.py::test_a_reader_ends_with_a_process_killed_meanwhile",
    ),
    Mutant(
        "the true gradient in both passes",
        TRAIN,
        "when=probe.climbs",
        "when=True",
        f"{FORMULAS}[shake-shake]",
    ),
    Mutant(
        "the true gradient where nothing climbs",
        TRAIN,
        "when=probe.climbs",
        "when=not probe.perturbed",
        f"{FORMULAS}[shake-shake, every second step]",
    ),
    Mutant(
        "warm-up a step late",
        PREPARE,
        "return (step + 1) / warmup",
        "return step / warmup",
        f"{FORMULAS}[warm-up]",
    ),
    Mutant(
        "an average of the other weight",
        STATE,
        "EMA(network, decay)",
        "EMA(network, 1 - decay)",
        f"{FORMULAS}[ema]",
    ),
    Mutant(
        "the average in place of the last weights",
        TRAIN,
        'with state.alike():\n                last = self._tested("last")',
        'with state.averaged():\n                last = self._tested("last")',
        f"{HERE}test_metrics.py::test_beside_an_average_the_last_weights_are_tested",
    ),
    Mutant(
        "a folder that is claimed before the settings are checked",
        TRAIN,
        "prepare.check_pass(experiment, network, self.batches.few(fewest), outputs)",
        "self.batches.few(fewest)",
        f"{HERE}test_errors.py::"
        "test_a_refused_setting_leaves_nothing_and_the_right_command_succeeds"
        "[model=test_vit.r160_in1k image_size=24]",
    ),
    Mutant(
        "a dry run that takes as long as it likes",
        "experiments/cost.py",
        "if most < few:",
        "if most < 0:",
        f"{HERE}test_dry_run.py::"
        "test_a_cell_is_timed_within_six_seconds_or_bounded[table2/resnet-152/100-epochs/sam-True]",
    ),
    Mutant(
        "machines with different numbers of processes",
        "experiments/launch.py",
        "if world % local:",
        "if world < local:",
        f"{HERE}test_launch.py::"
        "test_a_local_size_that_does_not_divide_is_found_before_anything_is_launched",
    ),
    Mutant(
        "parts of a group summed",
        TRAIN,
        "share * len(a) / len(x)",
        "share",
        f"{HERE}test_updates.py::test_in_parts_it_is_the_same_step[None-2]",
    ),
    Mutant(
        "sums not reset",
        EVALUATE,
        "        self.sums.zero_()\n",
        "",
        f"{HERE}test_metrics.py::test_means_are_over_the_steps_since_the_last_line",
    ),
    Mutant(
        "passes without gradients counted",
        TRAIN,
        "if losses.requires_grad:",
        "if True:",
        f"{HERE}test_metrics.py::"
        "test_gradient_examples_are_those_that_were_differentiated[k_sam-fields6-48]",
    ),
    Mutant(
        "random streams not resumed",
        STATE,
        "_stream_of(kind).set_rng_state(stream)",
        "pass",
        f"{RESUMED}[5-looksam on shake-shake]",
    ),
    Mutant(
        "metrics after the checkpoint kept",
        LOG,
        'if line["step"] <= step',
        "if True",
        f"{HERE}test_resume.py::"
        "test_without_checkpoint_in_time_it_begins_anew_to_the_same_end",
    ),
    Mutant(
        "a checkpoint at the end of an epoch without its line",
        TRAIN,
        " and state.step % batches.steps:",
        ":",
        f"{HERE}test_resume.py::test_a_checkpoint_at_the_end_of_an_epoch_has_its_line",
    ),
    Mutant(
        "checkpoint.json written first",
        STATE,
        "        write(checkpoint.part(folder, self.step, rank), buffer.getvalue())\n",
        "        named = checkpoint.part(folder, self.step, rank)\n"
        "        named.parent.mkdir(parents=True, exist_ok=True)\n"
        "        checkpoint.commit(folder, self.step, 1)\n"
        "        write(named, buffer.getvalue())\n",
        f"{HERE}test_errors.py::"
        "test_a_checkpoint_that_finds_no_room_leaves_the_one_before",
    ),
    Mutant(
        "labels predicted with the statistics of each batch",
        EVALUATE,
        "    model.eval()\n    return torch.cat(",
        "    return torch.cat(",
        f"{HERE}test_updates.py::test_predictions_are_those_of_the_running_statistics",
    ),
    Mutant(
        "a network that has diverged recognises class 0",
        TASKS,
        "return torch.where(known, outputs.argmax(1), NO_CLASS)",
        "return outputs.argmax(1)",
        f"{HERE}test_metrics.py::test_outputs_that_are_not_finite_are_wrong[nan-task0]",
    ),
    Mutant(
        "the class of outputs that are no numbers is among the five likeliest",
        TASKS,
        " & known\n",
        "\n",
        f"{HERE}test_metrics.py::test_outputs_that_are_not_finite_are_wrong[nan-task0]",
    ),
    Mutant(
        "labels from a teacher that has diverged",
        TRAIN,
        "if none := int((y == NO_CLASS).sum()):",
        "if none := 0:",
        f"{HERE}test_updates.py::test_a_teacher_that_has_diverged_teaches_nobody",
    ),
    Mutant(
        "a failure at the end costs the training",
        TRAIN,
        "            self.state.save(log.folder)\n        self._look(",
        "        self._look(",
        f"{HERE}test_resume.py::"
        "test_what_fails_after_the_last_step_costs_no_training[sgd]",
    ),
    Mutant(
        "the last line of metrics twice",
        TRAIN,
        "kept = min(self.state.step, self.steps - 1)",
        "kept = self.state.step",
        f"{HERE}test_resume.py::"
        "test_what_fails_after_the_last_step_costs_no_training[sgd]",
    ),
    Mutant(
        "a part that was typed with a slash is another part",
        "experiments/runs/asked.py",
        '(part.rstrip("/"), n)',
        "(part, n)",
        "tests/experiments/report/test_numbers.py::"
        "test_a_part_that_was_typed_with_a_slash_counts[tablet/]",
    ),
    Mutant(
        "a dry run of a rate that rises until the end",
        "experiments/cost.py",
        "    prepare.warmup_steps(experiment, per_epoch, steps)\n",
        "",
        f"{HERE}test_dry_run.py::"
        "test_what_training_refuses_for_its_numbers_is_refused_in_the_same_words"
        "[settings1]",
    ),
]
