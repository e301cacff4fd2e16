"""Install the built wheel into a clean environment and use it from outside the tree.

python .ci/check_wheel.py DIST
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

EXAMPLE = """
import sys
import torch
before = set(sys.modules)
import flatmin
own = {name.partition(".")[0] for name in set(sys.modules) - before}
foreign = own - {"flatmin"} - sys.stdlib_module_names
assert not foreign, f"import flatmin pulled in {foreign}"

model = torch.nn.Linear(4, 2)
x, y = torch.randn(8, 4), torch.randint(2, (8,))
optimizer = flatmin.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
for probe in optimizer.probes():
    torch.nn.functional.cross_entropy(model(x), y).backward()
optimizer.step()
print("flatmin", flatmin.__version__, "from", flatmin.__file__)
"""


def main() -> None:
    (wheel,) = Path(sys.argv[1]).glob("flatmin-*.whl")
    check_content(wheel)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        python = home / "env" / "bin" / "python"
        run([python, "-m", "pip", "install", "-q", wheel.resolve()], home)
        run([python, "-I", "-c", EXAMPLE], home)
        check_program(home)


def check_content(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0].partition("-")[0] for name in names}
    assert tops == {"flatmin"}, f"the wheel holds more than the package: {tops}"
    templates = "flatmin/pictures/templates"
    for needed in (
        "flatmin/py.typed",
        "flatmin/core/_metric.py",
        f"{templates}/base.html.j2",
        f"{templates}/page.css",
        f"{templates}/page.js",
    ):
        assert needed in names, f"{needed} is missing from the wheel"
    assert any(name.endswith("LICENSE") for name in names), "no license"


def check_program(home: Path) -> None:
    """Without the extra, the program says what is missing in one line."""
    program = [str(home / "env" / "bin" / "flatmin"), "compare"]
    done = subprocess.run(
        program, check=False, cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr, done.stderr
    # torch may warn that NumPy is missing before we have our say.
    message = done.stderr.splitlines()[-1]
    assert message.startswith("flatmin: "), done.stderr
    assert "flatmin[experiments]" in message, done.stderr


def run(command: list[object], folder: Path) -> None:
    subprocess.run([str(part) for part in command], cwd=folder, check=True)


if __name__ == "__main__":
    main()
