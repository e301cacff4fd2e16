"""Draw the pictures of docs/tutorial.md: `python docs/pictures/tutorial.py`.

All curves and points are those that the code of the page has computed. Lines and
letters are of a middle lightness on no background, so that they can be read on white
and on black. Each picture says in its metadata which version of this file has drawn it,
and from which numbers: tests/test_tutorial.py computes them again.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1]
BALLS = (1, 2, math.inf)
PAGE = DOCS / "tutorial.md"

GREY, BLUE, ORANGE, GREEN = "#7f7f7f", "#3b82d0", "#d9691e", "#2f9e63"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "svg.hashsalt": "flatmin",
}


def computed() -> dict[str, Any]:
    """What the code of the page leaves behind, run from top to bottom."""
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        exec(code, names)
    return names


def minima(page: dict[str, Any]) -> Figure:
    """Section 1 and 2: a loss, and its maximum over intervals."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    panel = figure.subplots()
    w, losses, highest = page["line"], page["losses"], page["highest"]
    panel.plot(w, losses, color=BLUE, label="$L(w)$")
    label = r"$\max_{|\epsilon| \leq 0.3}\; L(w + \epsilon)$"
    panel.plot(w, highest, color=ORANGE, linestyle="--", label=label)
    for name, half in {"sharp": w < 0, "flat": w > 0}.items():
        k = losses[half].argmin()
        x, y = float(w[half][k]), float(losses[half][k])
        panel.plot(x, y, "o", color=BLUE)
        panel.annotate(name, (x, y), (0, -16), ha="center", textcoords="offset points")
    k = highest.argmin()
    panel.plot(w[k], highest[k], "o", color=ORANGE)
    panel.set(xlabel="$w$", ylabel="loss", ylim=(-0.08, 1.08))
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _bare(panel)
    return figure


def balls(page: dict[str, Any]) -> Figure:
    """Section 4: three balls, the gradient, and the highest point of each."""
    rho, g = 0.5, page["gradient"](page["w"])
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, p in zip(panels, BALLS, strict=True):
        _ball(panel, rho, p)
        eps = page["eps_hat"](g, rho, p)
        _level(panel, g, float(eps @ g))
        _arrow(panel, (0, 0), 0.38 * g, GREY)
        _letter(panel, "$g$", 0.38 * g, (3, 2), GREY)
        _arrow(panel, (0, 0), eps, ORANGE)
        panel.plot(*eps, "o", color=ORANGE, markersize=4)
        place = (-16, 2) if p == math.inf else (-2, -15)
        _letter(panel, r"$\hat\epsilon$", 0.6 * eps, place, ORANGE)
        panel.set_title(r"$p = \infty$" if p == math.inf else f"$p = {p}$", color=GREY)
    panels[0].set_ylabel(r"$\epsilon_2$")
    return figure


def surface(p: float) -> torch.Tensor:
    """Points with ``||x||_p = 1`` in the plane, all around, as two rows."""
    turn = torch.linspace(0, 2 * math.pi, 201, dtype=torch.float64)
    x = torch.stack([turn.cos(), turn.sin()])
    return x / torch.linalg.vector_norm(x, p, dim=0)


def steps(page: dict[str, Any]) -> Figure:
    """Section 6: up to w + eps, the gradient there, and the step from w."""
    w, eps, g_eps = page["w"], page["eps"], page["g_eps"]
    plain, step = page["lr"] * page["g"], page["lr"] * g_eps
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    panel = figure.subplots()
    _hills(panel, page)
    _arrow(panel, w, w - plain, GREY, linestyle="--")
    _arrow(panel, w, w + eps, ORANGE)
    _arrow(panel, w + eps, w + eps + 0.12 * g_eps, BLUE)
    _arrow(panel, w, w - step, GREEN)
    panel.plot(*w, "o", color=GREY)
    panel.plot(*(w + eps), "o", color=ORANGE)
    panel.plot(0, 0, "+", color=GREY, markersize=9)
    _letter(panel, "$w$", w, (0, -17), GREY)
    _letter(panel, r"$w + \hat\epsilon$", w + eps, (-4, -18), ORANGE)
    _letter(panel, r"1: $\hat\epsilon$", w + 0.5 * eps, (-20, 10), ORANGE)
    _letter(panel, r"2: $g_\epsilon$", w + eps + 0.06 * g_eps, (-18, 11), BLUE)
    _letter(panel, r"3: $-\eta\, g_\epsilon$", w - step, (-10, -20), GREEN)
    _letter(panel, r"$-\eta\, g$", w - plain, (-2, -20), GREY)
    return figure


def landscapes(page: dict[str, Any]) -> Figure:
    """Section 7: the loss around two networks, as the page draws it."""
    return page["figure"]


PICTURES: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "tutorial-minima.svg": minima,
    "tutorial-balls.svg": balls,
    "tutorial-steps.svg": steps,
    "tutorial-landscapes.svg": landscapes,
}


def numbers(page: dict[str, Any]) -> dict[str, list[float]]:
    """For each picture, some of the numbers that it shows."""
    ends = [page["eps_hat"](page["gradient"](page["w"]), 0.5, p) for p in BALLS]
    planes = [plane.losses[7][k] for plane in page["planes"].values() for k in (3, 7)]
    shown = {
        "minima": torch.cat([page["losses"][::100], page["highest"][::100]]),
        "balls": torch.cat(ends),
        "steps": torch.cat([page["w"], page["eps"], page["g_eps"], page["by_hand"]]),
        "landscapes": torch.tensor(planes),
    }
    return {f"tutorial-{k}.svg": v.tolist() for k, v in shown.items()}


def version() -> str:
    """A fingerprint of this file."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


def origin(picture: str) -> dict[str, Any]:
    """What the content of a picture says that it was drawn by, and from."""
    [said] = re.findall(r"<dc:description>(.*?)</dc:description>", picture, re.S)
    return json.loads(said)


def main() -> None:
    """Write the pictures beside the pages."""
    page = computed()
    with mpl.rc_context(STYLE):
        for name, draw in PICTURES.items():
            shown = [round(number, 4) for number in numbers(page)[name]]
            said = json.dumps({"version": version(), "numbers": shown})
            # Letters are outlines, the same in every browser.
            draw(page).savefig(
                DOCS / "images" / name, metadata={"Date": None, "Description": said}
            )


def _bare(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)


def _arrow(panel: Axes, start: Any, end: Any, colour: str, **more: Any) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0, **more}
    panel.annotate("", tuple(end), tuple(start), arrowprops={"lw": 1.6, **style})


def _letter(panel: Axes, text: str, at: Any, moved: Any, colour: str) -> None:
    panel.annotate(
        text, tuple(at), moved, textcoords="offset points", color=colour, fontsize=12
    )


def _ball(panel: Axes, rho: float, p: float) -> None:
    x, y = rho * surface(p)
    panel.fill(x, y, facecolor=BLUE, alpha=0.15)
    panel.plot(x, y, color=BLUE)
    panel.set(xlim=(-0.65, 0.95), ylim=(-0.65, 0.75), aspect="equal")
    panel.set(xticks=(-rho, 0, rho), yticks=(-rho, 0, rho), xlabel=r"$\epsilon_1$")
    _bare(panel)


def _level(panel: Axes, g: torch.Tensor, height: float) -> None:
    """The line of points with ``eps'g = height``."""
    foot, along = height * g / (g @ g), torch.stack([-g[1], g[0]])
    ends = torch.stack([foot - along, foot + along])
    panel.plot(ends[:, 0], ends[:, 1], color=GREY, linestyle="--", linewidth=1)


def _hills(panel: Axes, page: dict[str, Any]) -> None:
    x = torch.linspace(-0.6, 1.6, 111, dtype=torch.float64)
    y = torch.linspace(-0.1, 1.55, 83, dtype=torch.float64)
    points = torch.cartesian_prod(x, y)
    loss = torch.stack([page["loss_2d"](point) for point in points])
    levels = [0.05, 0.2, 0.45, 0.8, 1.25, 1.8, 2.5, 3.4, 4.5]
    heights = loss.reshape(len(x), len(y)).T
    panel.contour(x, y, heights, levels, colors=GREY, linewidths=0.7, alpha=0.4)
    panel.set(aspect="equal", xlabel="$w_1$", ylabel="$w_2$")
    _bare(panel)


if __name__ == "__main__":
    main()
