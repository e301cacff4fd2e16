"""What part of SAM's gain is left at which price: error against cost, task by task.

The settings of an arm with several candidates are chosen on a tenth of the training
examples, with two seeds that are not tested. Then all arms are trained on all training
examples, with paired seeds, and tested once, after the last step. Each run also follows
an average of its weights. Finished runs are not trained again, so that ``--seeds 10``
adds five; the same command in another terminal shares the work. All finished runs are
in ``runs.csv``, from which another machine can go on:

    python benchmarks/price digits-noise --out runs/price
    python benchmarks/price digits-noise --known runs.csv --seeds 10

All tasks but the digits need images, sentences or a series below ``--data``; if they
are missing, the message has the address of the original. Where all arms take too long,
name some before the first run, and keep the seeds:

    python benchmarks/price sst2 --weights model.safetensors --arms base-2 late-quarter
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import report
from ledger import Ledger
from study import BASE, NAMES, SAM, Study
from tasks import TASKS

sys.path.append(str(Path(__file__).resolve().parents[1]))
from machine import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=TASKS, nargs="?", default="digits-noise")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/price"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--arms", nargs="+", choices=NAMES, default=NAMES, help="besides base and SAM"
    )
    parser.add_argument("--weights", help="a file for a pretrained network")
    parser.add_argument(
        "--known", type=Path, help="a runs.csv of the task: its runs are not trained"
    )
    parser.add_argument("--smoke", action="store_true", help="3 epochs of three arms")
    given = parser.parse_args()
    task = TASKS[given.task]
    folder = None if task.folder is None else given.data / task.folder
    if folder is not None and not folder.is_dir():
        sys.exit(f"{folder} is not there. Its original: {task.origin}.")
    print(machine() + "\n", flush=True)
    with TemporaryDirectory() as thrown_away:
        root = Path(thrown_away) if given.smoke else given.out / given.task
        seeds = 1 if given.smoke else given.seeds
        arms = (BASE, SAM, *given.arms)
        root.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(root / "runs.csv")
        if given.known is not None:
            _read(given.known, ledger)
        study = Study(
            task, root, ledger, given.data, seeds, arms, given.weights, given.smoke
        )
        tested = list(study.tested())
        report.picture(task.words, tested, root / "price.png")
    print(report.table(task.words, tested).markdown())


def _read(path: Path, ledger: Ledger) -> None:
    try:
        ledger.read(path)
    except (OSError, ValueError) as error:
        sys.exit(f"{path} cannot be read: {error}")


if __name__ == "__main__":
    main()
