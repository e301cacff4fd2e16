"""Defects of sentences and of calibration, and the test each must turn red."""

from tests.mutants.mutant import Mutant

BATCHES = "experiments/batches.py"
BERT = "experiments/models/bert.py"
TASKS = "experiments/tasks.py"
TEXT = "experiments/datasets/_text.py"

CUT = "tests/experiments/datasets/test_text.py::"
LOOP = "tests/experiments/loop/test_sentences.py::"
METRICS = "tests/experiments/loop/test_metrics.py::"
NETWORK = "tests/experiments/models/test_bert.py::"

SENTENCES = [
    Mutant(
        "a long sentence loses its end",
        TEXT,
        "x[longer, -1] = split.x.gather(1, last)[longer, 0]",
        "pass",
        f"{CUT}test_long_sentences_keep_their_end",
    ),
    Mutant(
        "sentences drawn without their labels",
        "experiments/datasets/_select.py",
        "return replace(split, x=split.x[index], y=split.y[index])",
        "return replace(split, x=split.x[index], y=split.y[: len(index)])",
        f"{CUT}test_the_draw_of_training_sentences_keeps_pieces_and_labels_together",
    ),
    Mutant(
        "labels of sentences are read without a look",
        TEXT,
        'if not rows or not {*labels} <= {"0", "1"}:',
        "if not rows:",
        f"{CUT}test_a_file_that_is_not_sentences_and_labels_is_damaged[another label]",
    ),
    Mutant(
        "fillers count in the mean of a sentence",
        BERT,
        "share = (real / real.sum(1, keepdim=True)).to(states.dtype)",
        "share = (real / x.shape[1]).to(states.dtype)",
        f"{NETWORK}test_published_weights_classify_the_mean_of_the_states",
    ),
    Mutant(
        "fillers are attended to",
        BERT,
        "attention_mask=real.long()",
        "attention_mask=None",
        f"{NETWORK}test_fillers_change_nothing",
    ),
    Mutant(
        "a batch of sentences loses its longest words",
        BATCHES,
        "x = x[:, : int((x != 0).sum(1).max())]",
        "x = x[:, : int((x != 0).sum(1).min())]",
        f"{LOOP}test_the_errors_are_those_of_every_sentence_by_hand",
    ),
    Mutant(
        "calibration by the size of the whole gap",
        TASKS,
        "100 * sum(map(abs, gaps)) / n",
        "100 * abs(sum(gaps)) / n",
        f"{METRICS}test_the_calibration_error_is_that_of_its_definition",
    ),
    Mutant(
        "fillers are part of the calibration",
        TASKS,
        "torch.where(inside & real[:, None], gaps, 0)",
        "torch.where(inside, gaps, 0)",
        f"{METRICS}test_bins_of_confidence_hold_their_upper_end_and_add_up_over_batches",
    ),
]
