"""Defects of data sets, and the test each must turn red."""

from tests.mutants.mutant import Mutant

CACHE = "experiments/datasets/_cache.py"
CHECKS = "experiments/datasets/_checks.py"
CIFAR = "experiments/datasets/_cifar.py"
DOWNLOAD = "experiments/datasets/_download.py"
FETCH = "experiments/datasets/_fetch.py"
IMAGES = "experiments/datasets/_images.py"
INPUTS = "experiments/models/registry.py"
LARGE = "experiments/datasets/_large.py"
LAYOUT = "experiments/datasets/_layout.py"
SELECT = "experiments/datasets/_select.py"
SERIES = "experiments/datasets/_series.py"
SETS = "experiments/datasets/_sets.py"
SMALL = "experiments/datasets/_small.py"
TYPES = "experiments/datasets/_types.py"
WEIGHTS = "experiments/models/_weights.py"

CACHED = "tests/experiments/datasets/test_cache.py::"
CHECKED = "tests/experiments/datasets/test_checks.py::"
FILES = "tests/experiments/datasets/test_photographs.py::"
DOWNLOADED = "tests/experiments/datasets/test_download.py::"
FOLDERS = "tests/experiments/datasets/test_layout.py::"
GOT = "tests/experiments/datasets/test_fetch.py::"
LOADED = "tests/experiments/models/test_weights.py::"
OPENED = "tests/experiments/datasets/test_images.py::"
PICKLES = "tests/experiments/datasets/test_cifar.py::"
SELECTED = "tests/experiments/datasets/test_select.py::"
SCALED = "tests/experiments/models/test_inputs.py::"
TENSORS = "tests/experiments/datasets/test_small.py::"
WINDOWS = "tests/experiments/datasets/test_series.py::"

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
        "check(base / file, md5)",
        "check(base / file, None)",
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
    Mutant(
        "16-bit pictures clipped",
        IMAGES,
        'if turned.mode.startswith("I;16"):',
        "if False:",
        f"{OPENED}test_16_bits_are_scaled_and_not_clipped[a.png]",
    ),
    Mutant(
        "pictures left as the camera was held",
        IMAGES,
        "turned = ImageOps.exif_transpose(picture)",
        "turned = picture",
        f"{OPENED}test_a_picture_is_turned_as_its_camera_was[a.jpg]",
    ),
    Mutant(
        "a rotated TIFF file with its rows mixed up",
        IMAGES,
        "Image.open(file, formats",
        "Image.open(path, formats",
        f"{OPENED}test_an_uncompressed_tiff_is_turned_like_a_png[6]",
    ),
    Mutant(
        "a picture that is a program is run",
        IMAGES,
        "Image.open(file, formats=FORMATS)",
        "Image.open(file)",
        f"{OPENED}test_what_is_no_picture_is_refused_at_once"
        "[_postscript-none of BMP, GIF]",
    ),
    Mutant(
        "a hidden folder taken for a class",
        LAYOUT,
        'return name.startswith(".") or name in _COPIES',
        "return False",
        f"{FOLDERS}test_hidden_folders_are_no_classes_and_no_part_of_one[.git]",
    ),
    Mutant(
        "the folder's own validation images not used",
        SELECT,
        "if (own := data.validation) is not None:",
        "if (own := None) is not None:",
        f"{FOLDERS}test_own_validation_images_are_used_and_train_stays_whole",
    ),
    Mutant(
        "files of one size taken for the same",
        CHECKS,
        "found[sha256(path)]",
        "found[str(path.stat().st_size)]",
        f"{CHECKED}test_files_of_one_size_are_not_taken_for_the_same",
    ),
    Mutant(
        "a random last layer in front of fine-tuning",
        WEIGHTS,
        "        forget_classes(network)\n",
        "",
        f"{LOADED}test_a_classifier_of_other_classes_is_zero[resnet-8]",
    ),
    Mutant(
        "a random last layer behind downloaded weights",
        "experiments/models/registry.py",
        "            forget_classes(network)\n",
        "            pass\n",
        f"{LOADED}test_downloaded_weights_of_other_classes_have_a_classifier_of_zeros"
        "[5-False]",
    ),
    Mutant(
        "weights of convolutions left as they were",
        "experiments/prepare.py",
        "    if experiment.channels_last:\n",
        "    if False:\n",
        "tests/experiments/loop/test_updates.py::"
        "test_weights_of_convolutions_have_their_channels_last[True]",
    ),
    Mutant(
        "a file of weights may run anything",
        WEIGHTS,
        "weights_only=True",
        "weights_only=False",
        f"{LOADED}test_a_pickle_of_more_than_tensors_is_refused_and_not_run[value0]",
    ),
    Mutant(
        "pretrained networks given images of another scale",
        INPUTS,
        'return tuple(config["mean"]), tuple(config["std"])',
        "return data.mean, data.std",
        f"{SCALED}test_images_of_a_folder_are_scaled_as_the_weights_expect",
    ),
    Mutant(
        "a window forecasts the first step of the next part",
        SERIES,
        "(y + horizon <= y[-1] + 1)",
        "(y + horizon <= y[-1] + 2)",
        f"{WINDOWS}test_windows_begin_and_end_where_the_closed_form_says[512-96]",
    ),
    Mutant(
        "a series standardised by all of its steps",
        TYPES,
        "split.values[:, split.y]",
        "split.values",
        f"{WINDOWS}test_mean_and_deviation_are_those_of_the_training_steps",
    ),
    Mutant(
        "a compressed series not compared with its checksum",
        SERIES,
        ".hexdigest() != _ETTH1.md5",
        '.hexdigest() != _ETTH1.md5 and path.suffix != ".xz"',
        f"{WINDOWS}test_a_changed_or_damaged_file_is_named[ETTh1.csv.xz]",
    ),
]
