"""Defects of data sets, and the test each must turn red."""

from tests.mutants.mutant import Mutant

CIFAR = "experiments/datasets/_cifar.py"
FETCH = "experiments/datasets/_fetch.py"
LARGE = "experiments/datasets/_large.py"
SELECT = "experiments/datasets/_select.py"
SETS = "experiments/datasets/_sets.py"
SMALL = "experiments/datasets/_small.py"
TYPES = "experiments/datasets/_types.py"

FILES = "tests/experiments/datasets/test_photographs.py::"
GOT = "tests/experiments/datasets/test_fetch.py::"
PICKLES = "tests/experiments/datasets/test_cifar.py::"
SELECTED = "tests/experiments/datasets/test_select.py::"
TENSORS = "tests/experiments/datasets/test_small.py::"

DATASETS = [
    Mutant(
        "a pickle may run anything",
        CIFAR,
        'raise pickle.UnpicklingError(f"it asks for {module}.{name}")',
        "return super().find_class(module, name)",
        f"{PICKLES}test_a_pickle_that_would_run_something_is_refused[2]",
    ),
    Mutant(
        "CIFAR's checksums not compared",
        CIFAR,
        "None if tiny else md5",
        "None",
        f"{PICKLES}test_a_real_folder_is_read_only_with_the_published_checksums",
    ),
    Mutant(
        "checksum of an archive not compared",
        FETCH,
        "elif file in needed:\n            check(place / file.name, file.md5)",
        "elif file in needed:",
        f"{GOT}test_a_file_with_another_checksum_is_named",
    ),
    Mutant(
        "half a download used",
        FETCH,
        "    shutil.rmtree(part, ignore_errors=True)\n    try:",
        "    try:",
        f"{GOT}test_what_a_killed_download_left_is_thrown_away",
    ),
    Mutant(
        "an archive may write anywhere",
        FETCH,
        'getattr(tarfile, "data_filter", lambda member, _: member)',
        "lambda member, _: member",
        f"{GOT}test_a_member_that_would_leave_the_folder_is_refused",
    ),
    Mutant(
        "an incomplete data set is read",
        SETS,
        "if source.complete and len(split.y) != count:",
        "if False:",
        f"{FILES}test_real_photographs_must_be_all_there",
    ),
    Mutant(
        "SVHN without extra",
        SMALL,
        '_svhn(folder, "train", "extra")',
        '_svhn(folder, "train")',
        f"{TENSORS}test_svhn_is_train_and_extra_and_its_label_10_is_0",
    ),
    Mutant(
        "val of Flowers left out",
        LARGE,
        "_listed(base, train + val)",
        "_listed(base, train)",
        f"{FILES}test_train_and_val_of_flowers_are_trained_on",
    ),
    Mutant(
        "labels not in the digest",
        TYPES,
        "sha.update(_bytes(split.y))",
        "pass",
        f"{TENSORS}test_the_digest_sees_one_pixel_and_one_label",
    ),
    Mutant(
        "validation on the test set",
        SELECT,
        "test=chosen(data.train, held),",
        "",
        f"{SELECTED}test_validation_images_replace_the_test_set",
    ),
]
