"""The third-party models by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.zoo.case import Case
from tests.zoo.language import LANGUAGE
from tests.zoo.layers import LAYERS
from tests.zoo.series import SERIES, reformer
from tests.zoo.unusual import UNUSUAL
from tests.zoo.vision import VISION

MODELS: dict[str, Callable[[], Case]] = {
    **LANGUAGE,
    **SERIES,
    **VISION,
    **LAYERS,
    **UNUSUAL,
}

#: Those of which no two passes can start alike.
REFUSED: dict[str, Callable[[], Case]] = {"transformers: Reformer": reformer}
