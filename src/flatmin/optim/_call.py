"""A call of SAM as the user wrote it, and the lines that build the same optimizer."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import SGD, Optimizer

from flatmin.optim._elsewhere import ELSEWHERE, FRAMEWORKS, PAGE
from flatmin.optim._options import Options


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of SAM, or of a method, as they were given.

    Attributes:
        name: what was called.
        signature: what it takes.
        args: given by position.
        kwargs: given by name.
    """

    name: str
    signature: inspect.Signature
    args: tuple[object, ...]
    kwargs: dict[str, object]

    def check(self) -> None:
        """Refuse arguments of other libraries, and unknown ones.

        Raises:
            TypeError: there are such arguments.
        """
        misplaced = self._misplaced()
        strangers = [self._of_stranger(name) for name in self._strangers()]
        if not (misplaced or strangers):
            return
        said = " ".join(filter(None, [misplaced, *strangers]))
        known = {*ELSEWHERE, *self._of_base()}
        if misplaced or known.intersection(self._strangers()):
            said = self.instead(said)
        raise TypeError(said)

    def instead(self, problem: str) -> str:
        """Return the problem, followed by the lines to write."""
        framework = FRAMEWORKS.get(_caller())
        if framework:
            return (
                f"{problem} {framework.name} gives a class the parameters alone, and "
                f"{self.name}() needs a built optimizer and the model. "
                f"{framework.write}"
            )
        lines = "\n".join(f"    {line}" for line in self._lines())
        return f"{problem} Write\n{lines}\nMore: {PAGE}"

    def _misplaced(self) -> str | None:
        """Describe what was given as base, if it is a mistake known from elsewhere."""
        base, model = self._place(0, "base", "params"), self._place(1, "model")
        must = f"{self.name}(): base must be a built optimizer, got"
        if isinstance(base, nn.Module):
            swapped = " Base and model are swapped." * isinstance(model, Optimizer)
            return f"{must} the module {type(base).__name__}.{swapped}"
        if isinstance(base, type):
            return f"{must} the class {base.__name__}."
        if hasattr(base, "__iter__") and not isinstance(base, str | Optimizer):
            return f"{must} parameters ({type(base).__name__})."
        return None

    def _place(self, index: int, *names: str) -> object:
        """The argument of this position or one of these names."""
        if len(self.args) > index:
            return self.args[index]
        return next((self.kwargs[name] for name in names if name in self.kwargs), None)

    def _takes(self) -> list[str]:
        """The names of all arguments, those of `Options` included."""
        given = self.signature.parameters
        own = [n for n, p in given.items() if p.kind is not p.VAR_KEYWORD]
        passed_on = Options.__annotations__ if len(own) < len(given) else ()
        return [name for name in (*own, *passed_on) if name != "self"]

    def _strangers(self) -> list[str]:
        takes = self._takes()
        return [name for name in self.kwargs if name not in takes]

    def _of_stranger(self, name: str) -> str | None:
        """Return a sentence on a foreign argument; None if the new lines show it."""
        if self.kwargs[name] is False and name in ELSEWHERE:
            return f"Leave out {name}=False."
        if name in ELSEWHERE:
            return f"{name} {ELSEWHERE[name].says}"
        said = f"{self.name}() got an unexpected keyword argument {name!r}."
        near = self._near(name)
        if near:
            return f"{said} Did you mean {near[0]!r}?"
        if name in self._of_base():
            return None if self._misplaced() else f"{said} It is the base optimizer's."
        return f"{said} Beside base and model it takes {', '.join(self._takes()[2:])}."

    def _of_base(self) -> list[str]:
        """Return the names of arguments that belong to the base optimizer."""
        base = self._place(0, "base")
        others = [
            name
            for name in self._strangers()
            if name not in ELSEWHERE and not self._near(name)
        ]
        if isinstance(base, Optimizer):
            return [name for name in others if name in base.defaults]
        return others

    def _near(self, name: str) -> list[str]:
        """Return the argument that was probably meant, if there is one."""
        return difflib.get_close_matches(name, self._takes(), 1, 0.7)

    def _lines(self) -> Iterator[str]:
        """Yield a line that builds the base, if one is needed, and one for SAM."""
        given = [*self.args, *self.kwargs.values()]
        built = [one for one in given if isinstance(one, Optimizer)]
        options = _written({name: self.kwargs[name] for name in self._of_base()})
        if options or not built:
            classes = [one for one in given if isinstance(one, type)]
            kind = [*classes, *map(type, built), SGD][0]
            options = ", ".join(options or ["lr=..."])
            yield f"base = {_path(kind)}(model.parameters(), {options})"
        yield f"optimizer = flatmin.{self._method()}"

    def _method(self) -> str:
        """Return the call of SAM, or of the method for the foreign arguments."""
        on = [ELSEWHERE[n] for n, v in self.kwargs.items() if n in ELSEWHERE and v]
        moved = [e.method for e in on if e.method and self.name == "SAM"]
        options = {
            e.option: self.kwargs[n]
            for n, e in ELSEWHERE.items()
            if n in self.kwargs and e.option and e.method in moved
        }
        if not moved:
            options = self._own()
        written = ", ".join(["base", "model", *_written(options)])
        return f"{moved[0] if moved else self.name}({written})"

    def _own(self) -> dict[str, object]:
        """Return the method's own options; a missing one is an ellipsis."""
        given = self.signature.parameters.items()
        needed = {
            n: ...
            for n, p in given
            if p.kind is p.KEYWORD_ONLY and p.default is p.empty
        }
        third = self.args[2] if len(self.args) > 2 else None
        rho = {"rho": third} if isinstance(third, int | float) else {}
        takes = self._takes()[2:]
        return needed | rho | {n: v for n, v in self.kwargs.items() if n in takes}


def _written(options: dict[str, object]) -> list[str]:
    """Write options as keyword arguments; long or complex values as an ellipsis."""
    return [f"{name}={_short(value)}" for name, value in options.items()]


def _short(value: object) -> str:
    short = repr(value)
    plain = value is None or isinstance(value, bool | int | float | str | Sequence)
    return short if plain and len(short) < 40 else "..."


def _path(kind: type) -> str:
    """The name of a class as it is usually written."""
    own = kind.__module__.startswith("torch.optim")
    return f"torch.optim.{kind.__name__}" if own else kind.__name__


def _caller() -> str:
    """Return the name of the package that calls flatmin."""
    frame = inspect.currentframe()
    while frame and _package(frame.f_globals) == "flatmin":
        frame = frame.f_back
    return _package(frame.f_globals) if frame else ""


def _package(names: dict[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
