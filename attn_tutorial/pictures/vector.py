"""Figures as SVG that takes the colours and the letters of the page around it.

Matplotlib decides where everything stands; ``Vector`` writes it down. Text stays text,
so that it can be selected, searched and set in the page's own face. Each colour is an
attribute with a colour of ``style.COLORS``, which a style sheet replaces by what is
legible on its ground; where there is none, the figure stands on white. Nothing has a
name of its own, so that any number of figures can stand on one page.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from typing import Any

import matplotlib.figure
import numpy
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_hex
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Affine2D
from PIL import Image

from attn_tutorial.pictures.style import COLORS
from attn_tutorial.pictures.svg import num, runs

__all__ = ["Vector", "as_svg"]

FACES = "Book Sans,system-ui,Segoe UI,Roboto,Noto Sans,sans-serif"
INCH, SCREEN = 72, 96  # units of the drawing, and pixels of a page, to the inch
FEW = 8  # colours of a grid: with more of them it is an image

LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
CAPS = {"projecting": "square", "round": "round"}
ANCHORS = {0.5: "middle", 1.0: "end"}
SHARES = {"center": 0.5, "center_baseline": 0.5, "right": 1.0, "top": 1.0}
POWER = re.compile(r"\$\\mathdefault\{([^{}^]*)\^\{([^{}]*)\}\}\$")  # a tick's 10^k


def as_svg(figure: matplotlib.figure.Figure, alt: str) -> str:
    """Write a figure as one SVG element.

    Args:
        figure: Any matplotlib figure.
        alt: What a sighted reader concludes.

    Returns:
        Markup: a file, and a part of a page.
    """
    page, before = Vector(figure), figure.dpi
    figure.set_dpi(INCH)
    figure.draw(page)
    figure.set_dpi(before)
    wide, high = (round(SCREEN * side) for side in figure.get_size_inches())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="attn-fig" role="img" '
        f'aria-label="{html.escape(alt)}" width="{wide}" height="{high}" '
        f'viewBox="0 0 {num(page.width)} {num(page.height)}" '
        f'font-family="{FACES}" fill="{COLORS["black"]}">{"".join(page.parts)}</svg>'
    )


class Vector(RendererBase):
    """What matplotlib draws on: a list of SVG elements, in points from the top left.

    Attributes:
        parts: The elements so far.
        width: Points.
        height: Points.
    """

    def __init__(self, figure: matplotlib.figure.Figure):
        """Start an empty page of the figure's size."""
        super().__init__()
        self.figure, self.parts = figure, []
        self.width, self.height = (INCH * side for side in figure.get_size_inches())
        self.flip = Affine2D().scale(1, -1).translate(0, self.height)

    def get_canvas_width_height(self):
        return self.width, self.height

    def option_scale_image(self):
        return True

    def option_image_nocomposite(self):
        return True

    def draw_path(self, gc, path, transform, rgbFace=None):
        box = self._window(gc)
        look = ink(gc, rgbFace)
        line = rgbFace is None
        drawn = path.cleaned(
            transform + self.flip,
            remove_nans=True,
            clip=box if line else None,
            simplify=line and path.should_simplify,
            curves=True,
        )
        if look and len(drawn.vertices) > 1:
            part = f'<path {look} d="{outline(drawn)}"/>'
            self._add(part, None if line else box, drawn)

    def draw_markers(self, gc, marker_path, marker_trans, path, trans, rgbFace=None):
        box = self._window(gc) or (-INCH, -INCH, self.width + INCH, self.height + INCH)
        shape = stamp(marker_path.transformed(marker_trans))
        moved = (trans + self.flip).transform_path(path)
        places = [
            f"M{num(x)} {num(y)}{shape}"
            for x, y in (points[-2:] for points, _ in moved.iter_segments())
            if box[0] - 1 <= x <= box[2] + 1 and box[1] - 1 <= y <= box[3] + 1
        ]
        if places and (look := ink(gc, rgbFace)):
            self.parts.append(f'<path {look} d="{"".join(places)}"/>')

    def draw_quad_mesh(
        self,
        gc,
        master_transform,
        meshWidth,
        meshHeight,
        coordinates,
        offsets,
        offsetTrans,
        facecolors,
        antialiased,
        edgecolors,
    ):
        ends = numpy.asarray([coordinates[0, 0], coordinates[-1, -1]])
        (left, top), (right, low) = (master_transform + self.flip).transform(ends)
        shades = numpy.asarray(facecolors).reshape(meshHeight, meshWidth, 4)
        shades = shades[:: 1 if low > top else -1, :: 1 if right > left else -1]
        box = (min(left, right), min(top, low), max(left, right), max(top, low))
        if len(numpy.unique(shades.reshape(-1, 4), axis=0)) > FEW:
            self.parts.append(pixels((255 * shades).round().astype("uint8"), box))
        else:
            gap = gc.get_linewidth() if len(edgecolors) else 0
            self.parts.append(
                grid([[to_hex(c) for c in row] for row in shades], box, gap)
            )

    def draw_image(self, gc, x, y, im, transform=None):
        high, wide = im.shape[:2]
        to_unit = Affine2D().scale(1 / wide, 1 / high)
        sized = to_unit + transform if transform is not None else Affine2D()
        moved = sized + Affine2D().translate(x, y) + self.flip
        (left, top), (right, low) = moved.transform([(0, 0), (wide, high)])
        im = im[:: 1 if low > top else -1, :: 1 if right > left else -1]
        box = (min(left, right), min(top, low), max(left, right), max(top, low))
        corners = Path([box[:2], box[2:]])
        self._add(pixels(im, box), self._window(gc), corners)

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        power = POWER.fullmatch(s) if ismath else None
        if ismath and not power:  # a formula: its letters as outlines
            super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)
            return
        share = fixed_share(mtext or self._text_with(s))
        far = share * self.get_text_width_height_descent(s, prop, ismath)[0]
        turn = math.radians(angle)
        place = num(x + far * math.cos(turn)), num(y - far * math.sin(turn))
        self.parts.append(
            f'<text x="{place[0]}" y="{place[1]}"{letters(gc, prop)}'
            + (f' text-anchor="{ANCHORS[share]}"' if share else "")
            + (f' transform="rotate({num(-angle)} {" ".join(place)})"' if angle else "")
            + f">{raised(*power.groups()) if power else html.escape(s)}</text>"
        )

    def _text_with(self, line: str) -> Text:
        """Find the text of several lines that one of them belongs to."""
        texts = self.figure.findobj(Text)
        whole = (text for text in texts if line in text.get_text().split("\n"))
        return next(whole, Text())

    def _window(self, gc) -> tuple[float, ...] | None:
        """The part of the page that may be drawn on: left, top, right, low."""
        box = gc.get_clip_rectangle()
        if box is None:
            return None
        return box.x0, self.height - box.y1, box.x1, self.height - box.y0

    def _add(self, part: str, window: tuple[float, ...] | None, drawn: Path) -> None:
        """Add an element, cut off at a window if it reaches beyond."""
        if window is not None:
            (x0, y0), (x1, y1) = drawn.vertices.min(0), drawn.vertices.max(0)
            left, top, right, low = window
            if min(x0 - left, y0 - top, right - x1, low - y1) < -1:
                size = f'width="{num(right - left)}" height="{num(low - top)}"'
                view = " ".join(map(num, (left, top, right - left, low - top)))
                place = f'x="{num(left)}" y="{num(top)}"'
                part = f'<svg {place} {size} viewBox="{view}">{part}</svg>'
        self.parts.append(part)


def colour(name: str, rgba: Any, alpha: float | None) -> str:
    """Attributes for a colour, matplotlib's own black being our ink."""
    code = to_hex(tuple(rgba)[:3])
    code = COLORS["black"] if code == "#000000" else code
    opaque = alpha if alpha is not None else rgba[3] if len(rgba) == 4 else 1
    more = f' {name}-opacity="{opaque:.3g}"' if opaque < 1 else ""
    return f'{name}="{code}"{more}'


def ink(gc: Any, face: Any) -> str:
    """Attributes of a path; none at all where nothing would show."""
    alpha = gc.get_alpha() if gc.get_forced_alpha() else None
    wide = gc.get_linewidth() if gc.get_rgb()[3] else 0
    if face is None and not wide:
        return ""
    fill = 'fill="none"' if face is None else colour("fill", face, alpha)
    return fill + (stroke(gc, alpha) if wide else "")


def stroke(gc: Any, alpha: float | None) -> str:
    """Attributes of a line: colour, width, ends and dashes."""
    offset, dashes = gc.get_dashes()
    cap, join = CAPS.get(gc.get_capstyle()), gc.get_joinstyle()
    return (
        f" {colour('stroke', gc.get_rgb(), alpha)}"
        f' stroke-width="{num(gc.get_linewidth())}"'
        + (f' stroke-linecap="{cap}"' if cap else "")
        + (f' stroke-linejoin="{join}"' if join != "miter" else "")
        + (f' stroke-dasharray="{" ".join(map(num, dashes))}"' if dashes else "")
        + (f' stroke-dashoffset="{num(offset)}"' if dashes and offset else "")
    )


def letters(gc: Any, prop: Any) -> str:
    """Attributes of a text."""
    look = f' font-size="{num(prop.get_size_in_points())}"'
    heavy = prop.get_weight() not in ("normal", "regular", 400)
    look += ' font-weight="600"' if heavy else ""
    look += ' font-style="italic"' if prop.get_style() == "italic" else ""
    tint = colour(
        "fill", gc.get_rgb(), gc.get_alpha() if gc.get_forced_alpha() else None
    )
    return look + (f" {tint}" if tint != f'fill="{COLORS["black"]}"' else "")


def raised(base: str, power: str) -> str:
    """Write a power as text."""
    base, power = (html.escape(s.replace("-", "−")) for s in (base, power))
    return f'{base}<tspan dy="-.45em" font-size="72%">{power}</tspan>'


def fixed_share(text: Text) -> float:
    """Where along its line a text is fixed: 0 at its start, 1 at its end.

    What is placed by this point stays in place when the page sets it in narrower
    letters than those that matplotlib measured.
    """
    mode, turned = text.get_rotation_mode(), text.get_rotation() % 180
    across = turned == 90 and mode != "anchor" and "\n" not in text.get_text()
    return SHARES.get(text.get_va() if across else text.get_ha(), 0.0)


def outline(path: Path) -> str:
    """Write a path whose points are in place."""
    return "".join(
        LETTERS[code] + " ".join(map(num, points)) if code in LETTERS else "z"
        for points, code in path.iter_segments(simplify=False)
    )


def stamp(marker: Path) -> str:
    """Write a marker from its middle, so that each of many reads the same."""
    parts, here = [], numpy.zeros(2)
    for points, code in marker.iter_segments(simplify=False):
        if code not in LETTERS:
            parts.append("z")
            continue
        steps = (numpy.reshape(points, (-1, 2)) * (1, -1) - here).round(2)
        here = here + steps[-1]
        parts.append(
            LETTERS[code].lower() + " ".join(f"{s + 0.0:g}" for s in steps.flat)
        )
    return "".join(parts)


def grid(shades: list[list[str]], box: tuple[float, ...], gap: float) -> str:
    """Write a grid of few colours: a path for each, a dash for each of its cells."""
    left, top, right, low = box
    wide, high = (right - left) / len(shades[0]), (low - top) / len(shades)
    gap = gap if min(wide, high) > 3 * gap else 0.0
    paths: dict[str, list[str]] = {}
    for i, row in enumerate(shades):
        for shade, j, length in runs(row):
            x, y = left + j * wide + gap / 2, top + (i + 0.5) * high
            dash = f"M{x:.2f} {y:.2f}h{length * wide - gap:.2f}"
            paths.setdefault(shade, []).append(dash)
    look = f'fill="none" stroke-width="{high - gap:.3f}"'
    look += f' stroke-dasharray="{wide - gap:.3f} {gap:.3f}"' if gap else ""
    return "".join(
        f'<path {look} stroke="{shade}" d="{"".join(paths[shade])}"/>'
        for shade in sorted(paths)
    )


def pixels(image: numpy.ndarray, box: tuple[float, ...]) -> str:
    """Embed an image, a pixel a cell, whose cells stay sharp however large they are."""
    file = io.BytesIO()
    Image.fromarray(numpy.ascontiguousarray(image)).save(file, "png", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    left, top, right, low = box
    return (
        f'<image x="{num(left)}" y="{num(top)}" width="{num(right - left)}" '
        f'height="{num(low - top)}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )
