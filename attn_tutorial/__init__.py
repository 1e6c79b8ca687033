"""Efficient attention, one equation at a time.

Reading order: patterns, dense, tiled, local, sparse, cost; then online, gradients and
the rolling cache. Networks, instruments and pictures are rooms of their own, loaded on
first use.
"""

from importlib import import_module

from attn_tutorial import cost, patterns
from attn_tutorial.dense import attention, attention_weights
from attn_tutorial.local import LocalAttention, local_attention
from attn_tutorial.patterns import dense_mask
from attn_tutorial.sparse import SparseAttention, sparse_attention

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "LocalAttention",
    "MultiHeadAttention",
    "RollingCache",
    "SparseAttention",
    "advise_window",
    "attention",
    "attention_weights",
    "conventions",
    "cost",
    "dense_mask",
    "exercises",
    "local_attention",
    "patterns",
    "sparse_attention",
]

ON_FIRST_USE = {
    "Advice": "instruments.advice",
    "MultiHeadAttention": "networks.layers",
    "RollingCache": "cache",
    "advise_window": "instruments.advice",
    "conventions": "conventions",
    "exercises": "exercises",
}


def __dir__() -> list[str]:
    """All names, so that the Tab key offers what is loaded on first use, too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Load what is no equation when somebody asks for it."""
    if name not in ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{ON_FIRST_USE[name]}")
    return module if ON_FIRST_USE[name] == name else getattr(module, name)
