"""Every number the paper prints is in its cell, and no other number is."""

from flatmin.experiments.recipes import Paper, recipe
from tests.experiments.recipes import printed

#: Value, spread, and whether the spread has a "<".
Number = tuple[float, float | None, bool]


def number(text: str) -> Number:
    value, _, spread = text.partition("±")
    below = spread.startswith("<")
    return float(value), float(spread.lstrip("<")) if spread else None, below


def found(name: str) -> dict[str, Number]:
    return {
        cell.name.removeprefix(f"{name}/"): (p.value, p.spread, p.below)
        for cell in recipe(name).cells
        if (p := cell.paper) is not None
    }


def test_table_1() -> None:
    want = {}
    for network, augment, *numbers in printed.lines(printed.TABLE1):
        places = [(d, m) for d in ("cifar10", "cifar100") for m in ("sam", "sgd")]
        for (data, method), text in zip(places, numbers, strict=True):
            want[f"{data}/{network}/{augment}/{method}"] = number(text)
    assert len(want) == 60
    assert found("table1") == want


def test_table_2() -> None:
    want = {}
    for network, epochs, *numbers in printed.lines(printed.TABLE2):
        for method, text in zip(("sam", "sgd"), numbers, strict=True):
            for top, one in zip(("top-1", "top-5"), text.split(), strict=True):
                name = f"{network}/{epochs}-epochs/{method}/{top}"
                want[name] = number(one.strip("()"))
    assert len(want) == 36
    assert found("table2") == want


def test_table_3() -> None:
    want = {}
    for data, *numbers in printed.lines(printed.TABLE3):
        places = [(n, m) for n in ("b7", "l2") for m in ("sam", "sgd", "before")]
        for (network, method), text in zip(places, numbers, strict=True):
            want[f"{data}/{network}/{method}"] = number(text)
    assert len(want) == 54
    assert found("table3") == want


def test_table_4() -> None:
    want = {}
    for method, *numbers in printed.lines(printed.TABLE4):
        for noise, text in zip((20, 40, 60, 80), numbers, strict=True):
            if text != "-":
                want[f"noise-{noise}/{method}"] = number(text)
    assert len(want) == 48
    assert found("table4") == want


def test_table_5() -> None:
    want = {}
    for network, augment, *pairs in printed.lines(printed.TABLE5):
        for data, pair in zip(("svhn", "fashion-mnist"), pairs, strict=True):
            for method, text in zip(("sam", "sgd"), pair.split(" / "), strict=True):
                want[f"{data}/{network}/{augment}/{method}"] = number(text)
    assert len(want) == 16
    assert found("table5") == want


def test_table_8() -> None:
    want = {}
    for rho, *numbers in printed.lines(printed.TABLE8):
        for noise, text in zip((20, 40, 60, 80), numbers, strict=True):
            want[f"noise-{noise}/rho-{rho}"] = number(text)
    assert len(want) == 28
    assert found("table8") == want


def test_table_9_is_table_1_but_for_three_rows() -> None:
    want: dict[str, Number] = {
        name.removesuffix("/sam"): (value, None, False)
        for name, (value, _, _) in found("table1").items()
        if name.endswith("/sam")
    }
    for network, data, *numbers in printed.lines(printed.TABLE9):
        for augment, text in zip(("basic", "cutout", "aa"), numbers, strict=True):
            want[f"{data}/{network}/{augment}"] = number(text)
    assert found("table9") == want


def test_table_10() -> None:
    want = {data: number(text) for data, text in printed.lines(printed.TABLE10)}
    assert found("table10") == want


def test_table_11() -> None:
    want = {}
    for steps, *numbers in printed.lines(printed.TABLE11):
        places = [
            (d, q) for d in ("cifar10", "cifar100") for q in ("error", "sharpness")
        ]
        for (data, quantity), text in zip(places, numbers, strict=True):
            want[f"{data}/steps-{steps}/{quantity}"] = number(text)
    assert found("table11") == want
    assert recipe("table11").spread == "standard deviation"


def test_figure_3() -> None:
    want = {}
    for method, epoch, *numbers in printed.lines(printed.FIGURE3):
        for quantity, text in zip(("max", "ratio"), numbers, strict=True):
            want[f"{method}/epoch-{epoch}/lambda-{quantity}"] = number(text)
    assert found("figure3-left") == want


def test_a_number_is_shown_as_the_paper_prints_it() -> None:
    (cell,) = recipe("table2/resnet-101/400-epochs/sam/top-1").cells
    assert cell.paper is not None
    assert cell.paper.text == "19.0±<.01"
    assert Paper(2.5, 0.1, below=True).text == "2.5±<0.1"
    assert Paper(2.5).text == "2.5"
