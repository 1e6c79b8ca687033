"""Efficient attention, one equation at a time.

Reading order: patterns, dense, tiled, local, sparse, cost.
"""

from attn_tutorial import cost, patterns
from attn_tutorial.dense import attention, attention_weights
from attn_tutorial.instruments.advice import Advice, advise_window
from attn_tutorial.local import LocalAttention, local_attention
from attn_tutorial.patterns import dense_mask
from attn_tutorial.sparse import SparseAttention, sparse_attention

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "LocalAttention",
    "SparseAttention",
    "advise_window",
    "attention",
    "attention_weights",
    "cost",
    "dense_mask",
    "local_attention",
    "patterns",
    "sparse_attention",
]
