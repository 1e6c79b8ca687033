"""Sphinx extension: the masks of the first page, and a query that walks through them.

The directive ``{masks}`` draws them. No script runs: each row has its turn by a style
sheet (``book/_assets/first_page.css``), which stands still where the reader's system
asks for that. ``tests/test_pages.py`` holds the masks against the patterns.
"""

TOKENS = 16
STILL = 6  # the query that is shown where nothing moves
# name -> title, what the caption says of it, whether query i meets key j
MASKS = {
    "full": ("Self-attention", "every pair", lambda i, j: True),
    "local": ("Local attention", "a window of w = 2", lambda i, j: abs(i - j) <= 2),
    "blocks": (
        "Block-sparse attention",
        "blocks of b = 2",
        lambda i, j: abs(i // 2 - j // 2) <= 1,
    ),
}
ALT = {
    "full": "Full self-attention on 16 tokens: all {} cells of the square are filled, "
    "every query meets every key.",
    "local": "Local attention on 16 tokens with window 2: a diagonal band of {} filled "
    "cells; each query meets the keys at most 2 steps away.",
    "blocks": "Block-sparse attention on 16 tokens in blocks of 2: a staircase of {} "
    "filled cells; each query meets its own block and the two beside it.",
}
LINES = "".join(f"M0 {k}h{TOKENS}M{k} 0v{TOKENS}" for k in range(TOKENS + 1))


def kept_keys(keep, query: int) -> list[int]:
    return [key for key in range(TOKENS) if keep(query, key)]


def row_path(query: int, keys: list[int]) -> str:
    """One rectangle for the keys of a query, which are neighbours."""
    return f"M{keys[0]} {query}h{len(keys)}v1h-{len(keys)}z"


def draw_row(query: int, keys: list[int], say=str) -> str:
    """A query's turn: its row is framed, its keys stand out and are counted."""
    still = " still" if query == STILL else ""
    words = say("query {query}: {keys} keys").format(query=query, keys=len(keys))
    return (
        f'<g class="turn{still}" style="--i:{query}">'
        f'<path d="{row_path(query, keys)}"/>'
        f'<rect y="{query}" width="{TOKENS}" height="1"/>'
        f'<text x="{TOKENS / 2:g}" y="{TOKENS + 1.6}">{words}</text></g>'
    )


def draw_mask(name: str, say=str) -> str:
    *texts, keep = MASKS[name]
    title, words = map(say, texts)
    keys = [kept_keys(keep, query) for query in range(TOKENS)]
    count = sum(map(len, keys))
    kept = "".join(row_path(query, found) for query, found in enumerate(keys))
    turns = "".join(draw_row(query, found, say) for query, found in enumerate(keys))
    caption = say("{words}: {count} pairs").format(words=words, count=count)
    return (
        f'<figure class="{name}">'
        f'<svg viewBox="-0.1 -0.1 {TOKENS + 0.2} {TOKENS + 2.2}" '
        f'role="img" aria-label="{say(ALT[name]).format(count)}" data-mask="{name}">'
        f'<path class="page" d="M0 0h{TOKENS}v{TOKENS}h-{TOKENS}z"/>'
        f'<path data-kept d="{kept}"/><path class="lines" d="{LINES}"/>{turns}</svg>'
        f"<figcaption><strong>{title}</strong><br>{caption}</figcaption>"
        "</figure>"
    )


def draw_masks(say=str) -> str:
    """All three, and a box that stops the walk; ``say`` puts words into a language."""
    return (
        f'<div class="masks">{"".join(draw_mask(name, say) for name in MASKS)}'
        '<label class="masks-pause"><input type="checkbox"> '
        f"{say('Stand still')}</label></div>"
    )


def setup(app):
    """Add the directive."""
    import languages
    from docutils import nodes
    from docutils.parsers.rst import Directive

    class Masks(Directive):
        def run(self):
            config = self.state.document.settings.env.config
            drawn = draw_masks(lambda words: languages.say(config, words))
            return [nodes.raw("", drawn, format="html")]

    app.add_directive("masks", Masks)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
