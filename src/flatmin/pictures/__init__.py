"""Pictures of what `flatmin.diagnostics` measures: for papers, and interactive pages.

Models that are compared share directions, axes, heights and colours; nothing is scaled
for one model alone. Colours get lighter as losses get higher, so that they can be told
apart by colour-blind readers, and in grey.
"""

from flatmin.pictures._scale import Scale
from flatmin.pictures.html import page, share_plotly
from flatmin.pictures.static import contour, encoded, line, surface

__all__ = ["Scale", "contour", "encoded", "line", "page", "share_plotly", "surface"]
