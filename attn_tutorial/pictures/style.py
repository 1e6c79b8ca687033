"""One style for all pictures: colours, shades, dashes and markers.

Figures (``plots``) and frames (``frames``) take theirs from here, so that a curve looks
the same wherever it is drawn.
"""

from __future__ import annotations

__all__ = [
    "COLORS",
    "CYCLE",
    "DASHES",
    "DASH_ARRAYS",
    "KEPT",
    "LEVELS",
    "MARKERS",
    "WASTED",
]

# Okabe and Ito's palette: told apart by readers of every kind of colour vision.
COLORS = {
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "orange": "#e69f00",
    "sky": "#56b4e9",
    "black": "#222222",
    "grey": "#8a8a8a",
    "pale": "#e8e8e8",
    "white": "#ffffff",
}
CYCLE = [COLORS[c] for c in ("blue", "vermillion", "green", "purple", "orange", "sky")]
KEPT, WASTED = COLORS["blue"], COLORS["orange"]

# Curve k has colour, dash and marker k, in matplotlib's words and in SVG's.
DASHES = ["-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1))]
DASH_ARRAYS = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2"]
MARKERS = ["o", "s", "^", "D", "v", "P"]

# 16 steps of viridis, fixed here so that no frame depends on matplotlib's version.
LEVELS = (
    "#440154 #481a6c #472f7d #414487 #39568c #31688e #2a788e #23888e "
    "#1f988b #22a884 #35b779 #54c568 #7ad151 #a5db36 #d2e21b #fde725"
).split()
