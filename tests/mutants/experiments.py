"""Defects of the training loop of the experiments, and the test each must turn red."""

from tests.mutants.mutant import Mutant

LOOP = "experiments/loop.py"
FEED = "experiments/feed.py"
RUN = "experiments/run.py"
CHECKPOINT = "experiments/checkpoint.py"
COMPARISON = "experiments/comparison.py"

HERE = "tests/experiments/loop/"
FORMULAS = f"{HERE}test_updates.py::test_two_epochs_are_those_of_the_formulas"
ARMS = (
    "tests/experiments/test_comparison.py::test_arms_differ_in_method_and_length_alone"
)
RESUMED = f"{HERE}test_resume.py::test_a_run_that_is_left_by_an_exception_ends_alike"

EXPERIMENTS = [
    Mutant(
        "SGD compared with no more epochs than SAM",
        COMPARISON,
        "length=self.arm.length",
        "length=1",
        ARMS,
    ),
    Mutant(
        "a comparison without its noise",
        COMPARISON,
        "noise=self.noise",
        "noise=0.0",
        ARMS,
    ),
    Mutant(
        "a checkpoint that may run code",
        CHECKPOINT,
        "weights_only=True",
        "weights_only=False",
        f"{HERE}test_errors.py::test_a_checkpoint_cannot_run_code",
    ),
    Mutant(
        "every epoch in the same order",
        FEED,
        "repr((self.experiment.seed, epoch, *place))",
        "repr((self.experiment.seed, *place))",
        f"{HERE}test_feed.py::test_orders_differ_between_epochs_and_seeds[0]",
    ),
    Mutant(
        "seeds that differ above 32 bits alone",
        FEED,
        "int.from_bytes(drawn) >> 2 << 1",
        "int.from_bytes(drawn[:3]) << 33",
        f"{HERE}test_feed.py::test_orders_differ_between_epochs_and_seeds[0]",
    ),
    Mutant(
        "all groups augmented alike",
        FEED,
        "self._seed(epoch, step, k)",
        "self._seed(epoch, step, 0)",
        f"{HERE}test_feed.py::"
        "test_the_same_image_is_augmented_anew_in_every_epoch_and_group",
    ),
    Mutant(
        "an image that fills up is tested",
        FEED,
        "torch.where(here, y, IGNORED)",
        "y",
        f"{HERE}test_feed.py::test_every_image_is_tested_once_and_processes_make_"
        "equally_many_passes[3]",
    ),
    Mutant(
        "a reader of files draws from the network's stream",
        FEED,
        "            generator=Generator(),\n",
        "",
        f"{HERE}test_feed.py::test_files_are_read_as_by_hand_whoever_reads_them"
        "[augments0]",
    ),
    Mutant(
        "the true gradient in both passes",
        LOOP,
        "when=probe.climbs",
        "when=True",
        f"{FORMULAS}[shake-shake]",
    ),
    Mutant(
        "the true gradient where nothing climbs",
        LOOP,
        "when=probe.climbs",
        "when=not probe.perturbed",
        f"{FORMULAS}[shake-shake, every second step]",
    ),
    Mutant(
        "warm-up a step late",
        LOOP,
        "return (step + 1) / warmup",
        "return step / warmup",
        f"{FORMULAS}[warm-up]",
    ),
    Mutant(
        "an average of the other weight",
        LOOP,
        "mean.lerp_(now[name], 1 - decay)",
        "mean.lerp_(now[name], decay)",
        f"{FORMULAS}[ema]",
    ),
    Mutant(
        "parts of a group summed",
        LOOP,
        "share * len(a) / len(x)",
        "share",
        f"{HERE}test_updates.py::test_in_parts_it_is_the_same_step[None-2]",
    ),
    Mutant(
        "sums not reset",
        LOOP,
        "        self._sums.zero_()\n",
        "",
        f"{HERE}test_metrics.py::test_means_are_over_the_steps_since_the_last_line",
    ),
    Mutant(
        "passes without gradients counted",
        LOOP,
        "if losses.requires_grad:",
        "if True:",
        f"{HERE}test_metrics.py::"
        "test_gradient_examples_are_those_that_were_differentiated[k_sam-fields6-48]",
    ),
    Mutant(
        "random streams not resumed",
        LOOP,
        '        torch.set_rng_state(state["random"])\n',
        "",
        f"{RESUMED}[5-looksam on shake-shake]",
    ),
    Mutant(
        "metrics after the checkpoint kept",
        RUN,
        'if m["step"] <= done',
        "if True",
        f"{HERE}test_resume.py::"
        "test_without_checkpoint_in_time_it_begins_anew_to_the_same_end",
    ),
    Mutant(
        "a checkpoint at the end of an epoch without its line",
        RUN,
        " and self.loop.step % self.feed.steps:",
        ":",
        f"{HERE}test_resume.py::test_a_checkpoint_at_the_end_of_an_epoch_has_its_line",
    ),
    Mutant(
        "checkpoint.json written first",
        CHECKPOINT,
        "    write(path, buffer.getvalue())\n",
        '    write_json(folder / "checkpoint.json", {"step": step, "world": 1})\n'
        "    write(path, buffer.getvalue())\n",
        f"{HERE}test_errors.py::"
        "test_a_checkpoint_that_finds_no_room_leaves_the_one_before",
    ),
    Mutant(
        "labels predicted with the statistics of each batch",
        RUN,
        "    run.loop.model.eval()\n",
        "",
        f"{HERE}test_updates.py::"
        "test_bootstrapping_trains_on_what_the_first_network_predicts",
    ),
]
