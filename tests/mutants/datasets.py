"""Defects of data sets, and the test each must turn red."""

from tests.mutants.mutant import Mutant

CACHE = "experiments/datasets/_cache.py"
CIFAR = "experiments/datasets/_cifar.py"
DOWNLOAD = "experiments/datasets/_download.py"
FETCH = "experiments/datasets/_fetch.py"
LARGE = "experiments/datasets/_large.py"
SELECT = "experiments/datasets/_select.py"
SETS = "experiments/datasets/_sets.py"
SMALL = "experiments/datasets/_small.py"
TYPES = "experiments/datasets/_types.py"

CACHED = "tests/experiments/datasets/test_cache.py::"
FILES = "tests/experiments/datasets/test_photographs.py::"
DOWNLOADED = "tests/experiments/datasets/test_download.py::"
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
        "check(place / file.name, file.md5)\n            _unpack(",
        "_unpack(",
        f"{GOT}test_a_file_with_another_checksum_is_named",
    ),
    Mutant(
        "half an unpacked archive used",
        FETCH,
        "    shutil.rmtree(part, ignore_errors=True)\n    try:",
        "    try:",
        f"{GOT}test_what_a_killed_process_was_unpacking_is_thrown_away",
    ),
    Mutant(
        "half a download used",
        DOWNLOAD,
        "if total not in (None, part.size):",
        "if False:",
        f"{GOT}test_a_download_that_breaks_off_is_never_used[None]",
    ),
    Mutant(
        "a download starts over",
        DOWNLOAD,
        "if checked or _condition(version) else 0",
        "if False else 0",
        f"{DOWNLOADED}test_a_part_that_is_complete_needs_no_byte_more[None]",
    ),
    Mutant(
        "a changed file is mixed with its old part",
        DOWNLOAD,
        "if any(told[name] not in (None, kept) for name, kept in version.items()):",
        "if False:",
        f"{DOWNLOADED}test_a_file_that_has_changed_is_not_mixed_with_its_old_part[old0-new0-True]",
    ),
    Mutant(
        "the server is not asked for the same file",
        DOWNLOAD,
        'headers["If-Range"] = condition',
        "pass",
        f"{DOWNLOADED}test_the_strongest_condition_is_asked_for[strong tag]",
    ),
    Mutant(
        "a download is continued that nobody can check",
        DOWNLOAD,
        "part.size if checked or _condition(version) else 0",
        "part.size",
        f"{DOWNLOADED}test_nothing_is_continued_that_nobody_could_check[headers0]",
    ),
    Mutant(
        "checksum of a download not compared",
        DOWNLOAD,
        "if check_integrity(part.path, md5):",
        "if True:",
        f"{DOWNLOADED}test_a_part_of_another_file_is_found_by_the_checksum",
    ),
    Mutant(
        "two processes download at once",
        FETCH,
        "with open_bars() as progress, _alone(title, folder, progress):",
        "with open_bars() as progress:",
        f"{GOT}test_of_two_processes_one_downloads_and_the_other_says_that_it_waits",
    ),
    Mutant(
        "what another process brought comes again",
        FETCH,
        "_bring(title, _needed(files, place), place, progress)",
        "_bring(title, files, place, progress)",
        f"{GOT}test_only_what_is_still_missing_is_asked_for",
    ),
    Mutant(
        "a changed image is not seen",
        CACHE,
        "\\0{found.st_mtime_ns}",
        "",
        f"{CACHED}test_a_change_in_the_folder_is_seen[repainted]",
    ),
    Mutant(
        "a damaged cache is used",
        CACHE,
        'return found if kept.get("crc") == _crc(found) else None',
        "return found",
        f"{CACHED}test_a_damaged_cache_is_ignored_and_written_again[a bit]",
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
        "sha.update(memory(split.y))",
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
