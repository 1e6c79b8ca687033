"""Pictures that move: with no kernel (``explorer``), and with one (``live``).

``explorer`` calls a function once for each setting and keeps all the pictures in plain
HTML, with native inputs and 1.5 kB of JavaScript: a slider for numbers, buttons or a
menu for kinds. The result works in the built page, JupyterLab, Colab and VS Code alike,
and nothing has to be installed to read it.
``live`` is for what needs Python at the other end: the reader's own sentence or size.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attn_tutorial.pictures.frames import (
    Frame,
    beside,
    boxes,
    caption,
    chart,
    mask,
    shades,
    table,
)
from attn_tutorial.pictures.style import COLORS
from attn_tutorial.pictures.svg import CSS

__all__ = [
    "Explorer",
    "Frame",
    "Live",
    "beside",
    "boxes",
    "caption",
    "chart",
    "explorer",
    "live",
    "mask",
    "shades",
    "table",
]

_CSS = CSS + (
    ".attn-x{position:relative;border:1px solid rgba(128,128,128,.45);"
    "border-radius:8px;padding:.8em 1em;margin:.6em 0;max-width:46em;"
    "box-sizing:border-box}"
    ".attn-x .attn-l{font-weight:600;margin:0 0 .5em}"
    ".attn-x .attn-a{display:flex;flex-wrap:wrap;gap:.3em .8em;align-items:center;"
    "margin:.25em 0}"
    ".attn-x .attn-a>span{min-width:5.5em}"
    ".attn-x input[type=range]{flex:1;min-width:6em;min-height:28px;margin:0;"
    f"cursor:pointer;accent-color:{COLORS['blue']}}}"
    ".attn-x output{min-width:3.5em;font-weight:600;font-variant-numeric:tabular-nums}"
    ".attn-x select,.attn-x button,.attn-g label{min-height:28px;padding:.1em .7em;"
    "box-sizing:border-box;cursor:pointer;font:inherit;color:inherit;background:none;"
    "border:1px solid currentColor;border-radius:6px}"
    ".attn-x option{color:CanvasText;background:Canvas}"
    ".attn-x button{margin:.3em 0;display:block}"
    ".attn-g label{display:flex;gap:.4em;align-items:center;margin:0;"
    "border-color:rgba(128,128,128,.6)}"
    ".attn-g label:has(:checked){font-weight:600;border-color:currentColor}"
    f".attn-g input{{margin:0;accent-color:{COLORS['blue']}}}"
    ".attn-x .attn-say{position:absolute;width:1px;height:1px;margin:0;overflow:hidden;"
    "clip-path:inset(50%)}"
    # All frames lie in one cell of a grid, so that each is as high as the highest.
    ".attn-p{display:grid;margin:.7em 0 0}"
    ".attn-f{grid-area:1/1;min-width:0;overflow-x:auto}"
    ".attn-f[hidden]{display:block!important;visibility:hidden}"
    "@media print{.attn-f[hidden]{display:none!important}}"
)

_SCRIPT = """
(function(){document.querySelectorAll('.attn-x:not([data-on])').forEach(function(x){
x.setAttribute('data-on','');x.querySelector('.attn-note').hidden=true;
var all=function(s){return [].slice.call(x.querySelectorAll(s));},
texts=JSON.parse(x.getAttribute('data-axes')),axes=all('.attn-a'),fr=all('.attn-f'),
say=x.querySelector('.attn-say'),b=x.querySelector('button'),timer=0;
function one(a){return a.querySelector('input[type=range],select');}
function get(a){return +(one(a)||a.querySelector('input:checked')).value;}
function put(a,i){var c=one(a);if(c)c.value=i;
else a.querySelectorAll('input')[i].checked=true;}
function show(e){var k=0;axes.forEach(function(a,n){var i=get(a),t=texts[n][i],
o=a.querySelector('output');k=k*texts[n].length+i;
if(o){o.textContent=t;one(a).setAttribute('aria-valuetext',t);}});
fr.forEach(function(f,i){f.hidden=i!==k;});
var p=fr[k].querySelector('[aria-label]');
say.textContent=e&&!timer&&p?p.getAttribute('aria-label'):'';}
function stop(){if(timer){clearInterval(timer);timer=0;mark();}}
function mark(){b.setAttribute('aria-pressed',!!timer);
b.textContent=timer?'Pause':'Play';}
all('input,select').forEach(function(c){c.disabled=false;
c.addEventListener('input',function(e){if(b)stop();show(e);});});
if(b){b.hidden=false;var calm=matchMedia('(prefers-reduced-motion: reduce)').matches;
b.addEventListener('click',function(){if(timer){stop();return;}
var n=axes.length-1;timer=setInterval(function(){
put(axes[n],(get(axes[n])+1)%texts[n].length);show();},calm?2000:700);mark();});}
show();});})();
"""

NUMBER = re.compile(r"[−-]?[\d.,]+(?:e[+-]?\d+)?")
FEW_KINDS, FEW_LETTERS = 4, 40  # more of them stand in a menu


class Explorer:
    """A set of frames under one input for each axis.

    Attributes:
        frames: All frames, the last axis varying fastest.
        summary: One line that changes whenever a frame does.
        markup: The HTML, complete in itself.
    """

    def __init__(self, frames: list[str], summary: str, markup: str):
        """Keep frames and markup made by ``explorer``."""
        self.frames, self.summary, self.markup = frames, summary, markup

    def __repr__(self) -> str:
        """Return the summary, so that a stored output tells when a frame changed."""
        return self.summary

    def _repr_html_(self) -> str:
        return self.markup


def explorer(
    frame: Callable[..., str],
    *,
    label: str,
    play: bool = False,
    start: Mapping[str, Any] | None = None,
    **axes: Iterable[Any],
) -> Explorer:
    """Draw ``frame(**values)`` for each combination of values, under inputs.

    An axis is a slider where its texts differ only in their numbers, else a row of
    buttons, or a menu where there are many.

    Args:
        frame: Function of one keyword for each axis; returns a frame (SVG or HTML).
        label: What the reader explores, in a few words.
        play: Whether to offer a button that moves the last axis by itself.
        start: Axis -> value shown first; the first value where it names no axis.
        **axes: Values of each axis, or a dictionary from shown text to value.

    Returns:
        An explorer that shows itself at the end of a cell.

    Raises:
        ValueError: If there is no axis, an axis is empty, or start names no value.

    Example:
        >>> explorer(lambda w: f"<p>{w}</p>", label="Window", w=[1, 2])
        Explorer('Window'; w: 2; 2 frames; ...)
    """
    choices = {name: _choices(name, values) for name, values in axes.items()}
    if not choices:
        raise ValueError("explorer needs at least one axis, such as window=[1, 2, 4]")
    combos = itertools.product(*(values for _, values in choices.values()))
    frames = [str(frame(**dict(zip(choices, combo, strict=True)))) for combo in combos]
    shown = {name: texts for name, (texts, _) in choices.items()}
    first = _first(choices, start or {})
    content = json.dumps([label, shown, first, frames], ensure_ascii=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    sizes = ", ".join(f"{name}: {len(texts)}" for name, texts in shown.items())
    summary = f"Explorer({label!r}; {sizes}; {len(frames)} frames; {digest})"
    return Explorer(
        frames, summary, _markup(frames, label, shown, first, play, f"attn-{digest}")
    )


def _choices(name: str, values: Iterable[Any]) -> tuple[list[str], list[Any]]:
    """Split an axis into the texts shown and the values passed to the frame."""
    pairs = values.items() if isinstance(values, Mapping) else ((v, v) for v in values)
    pairs = [(str(text), value) for text, value in pairs]
    if not pairs:
        raise ValueError(f"axis {name!r} needs at least one value")
    return [text for text, _ in pairs], [value for _, value in pairs]


def _first(choices: Mapping[str, tuple], start: Mapping[str, Any]) -> dict[str, int]:
    """Find the index of the value that each input shows first."""
    first = dict.fromkeys(choices, 0)
    for name, value in start.items():
        if name not in choices or value not in choices[name][1]:
            raise ValueError(f"start names {name}={value!r}, which no input has")
        first[name] = choices[name][1].index(value)
    return first


def _markup(
    frames: list[str],
    label: str,
    shown: Mapping[str, list[str]],
    first: Mapping[str, int],
    play: bool,
    name: str,
) -> str:
    """Write inputs, button and frames; all but the first frame are hidden."""
    visible = 0
    for axis, texts in shown.items():
        visible = visible * len(texts) + first[axis]
    inputs = "".join(_input(axis, shown[axis], first[axis], name) for axis in shown)
    button = '<button type="button" hidden aria-pressed="false">Play</button>'
    pictures = "".join(
        f'<div class="attn-f"{"" if k == visible else " hidden"}>{frame}</div>'
        for k, frame in enumerate(frames)
    )
    texts = html.escape(json.dumps(list(shown.values()), ensure_ascii=False))
    return (
        f'<style>{_CSS}</style><div class="attn-x" id="{name}" role="group" '
        f'aria-label="{html.escape(label)}" data-axes="{texts}">'
        f'<p class="attn-l">{html.escape(label)}</p>{inputs}'
        f"{button if play else ''}"
        '<p class="attn-note"><em>Run this cell (or trust the notebook) to move the '
        'picture.</em></p><p class="attn-say" aria-live="polite"></p>'
        f'<div class="attn-p">{pictures}</div></div><script>{_SCRIPT}</script>'
    )


def _input(axis: str, texts: list[str], first: int, name: str) -> str:
    """Write the input of an axis, as its texts ask for."""
    title = f"<span>{html.escape(axis.replace('_', ' '))}</span>"
    if len({NUMBER.sub("", text) for text in texts}) == 1:
        return _slider(title, texts, first)
    if len(texts) <= FEW_KINDS and len("".join(texts)) <= FEW_LETTERS:
        return _buttons(title, texts, first, f"{name}-{axis}")
    return _menu(title, texts, first)


# Notebooks must not swallow the arrow keys; a script switches an input on.
_COMMON = 'data-lm-suppress-shortcuts="true" autocomplete="off" disabled'


def _slider(title: str, texts: list[str], first: int) -> str:
    """Write a range input with its value beside it."""
    value = html.escape(texts[first])
    return (
        f'<label class="attn-a">{title}<input type="range" {_COMMON} min="0" '
        f'max="{len(texts) - 1}" value="{first}" step="1" '
        f'aria-valuetext="{value}"><output aria-live="off">{value}</output></label>'
    )


def _buttons(title: str, texts: list[str], first: int, name: str) -> str:
    """Write one radio button for each kind."""
    buttons = "".join(
        f'<label><input type="radio" {_COMMON} name="{html.escape(name)}" value="{k}"'
        f"{' checked' if k == first else ''}>{html.escape(text)}</label>"
        for k, text in enumerate(texts)
    )
    spoken = re.sub("<.*?>", "", title)
    return (
        f'<div class="attn-a attn-g" role="radiogroup" aria-label="{spoken}">'
        f"{title}{buttons}</div>"
    )


def _menu(title: str, texts: list[str], first: int) -> str:
    """Write a menu of kinds."""
    options = "".join(
        f'<option value="{k}"{" selected" if k == first else ""}>'
        f"{html.escape(text)}</option>"
        for k, text in enumerate(texts)
    )
    return f'<label class="attn-a">{title}<select {_COMMON}>{options}</select></label>'


class Live:
    """Controls that call Python; in a page without a kernel, one sentence.

    Attributes:
        callback: The function that the controls call; call it directly to test it.
        controls: The widgets by name; empty where ipywidgets is not installed.
        widget: Controls and picture together, or None without ipywidgets.
    """

    def __init__(self, callback: Callable[..., Any], names: Iterable[str]):
        """Start without widgets; ``live`` adds them."""
        self.callback, self.names = callback, tuple(names)
        self.controls: dict[str, Any] = {}
        self.widget: Any = None

    def __repr__(self) -> str:
        """Return the sentence that a page without a kernel shows."""
        names = ", ".join(name.replace("_", " ") for name in self.names)
        use = "run this cell in Jupyter or Colab to use them."
        return f"Live controls ({names}): {use}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict:
        bundle = {"text/plain": repr(self)}
        if self.widget is not None:
            view = {"version_major": 2, "version_minor": 0}
            view["model_id"] = self.widget.model_id
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle


def live(callback: Callable[..., Any], **controls: Any) -> Live:
    """Build controls that call ``callback`` again whenever one of them moves.

    Args:
        callback: Function of one keyword for each control; returns a picture from
            ``plots``, a frame, or text, which is shown as it is, never as HTML. A
            ValueError or TypeError is shown as text.
        **controls: ipywidgets, or their short forms: ``(1, 16)`` is a slider of whole
            numbers, a string a text field, a list a menu, a boolean a tick box.

    Returns:
        An object that shows itself at the end of a cell.

    Example:
        >>> live(lambda window: f"{2 * window + 1} keys", window=(1, 16))
        Live controls (window): run this cell in Jupyter or Colab to use them.
    """
    result = Live(callback, controls)
    try:
        import ipywidgets
    except ModuleNotFoundError:  # reading needs no widgets; the sentence stays
        return result
    build = ipywidgets.interactive.widget_from_abbrev
    result.controls = {name: build(value) for name, value in controls.items()}
    picture = ipywidgets.HTML()

    def refresh(*_: Any) -> None:
        values = {name: control.value for name, control in result.controls.items()}
        picture.value = _answer(callback, values)

    for name, control in result.controls.items():
        control.description = control.description or name.replace("_", " ")
        control.observe(refresh, names="value")
    refresh()
    result.widget = ipywidgets.VBox([*result.controls.values(), picture])
    return result


def _answer(callback: Callable[..., Any], values: Mapping[str, Any]) -> str:
    """Call the reader's function and turn what it returns into HTML."""
    try:
        result = callback(**values)
    except (TypeError, ValueError) as error:
        return f"<p><em>{html.escape(str(error))}</em></p>"
    if hasattr(result, "_repr_png_"):
        png, size = result._repr_png_()
        data = base64.b64encode(png).decode()
        alt = html.escape(repr(result))
        return (
            f'<img alt="{alt}" style="max-width:100%;width:{size["width"]}px" '
            f'src="data:image/png;base64,{data}">'
        )
    if hasattr(result, "_repr_html_"):
        return result._repr_html_()
    words = result if isinstance(result, str) else repr(result)
    return f'<p style="white-space:pre-wrap">{html.escape(words)}</p>'
