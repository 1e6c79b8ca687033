"""The source document's formulas and code, exactly as they were printed.

The chapters take them apart; nothing in the package computes with them.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

__all__ = ["ATTENTION", "LOCAL_ATTENTION", "MODULE", "SPARSE_ATTENTION", "run"]

ATTENTION = r"\text{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)V"
LOCAL_ATTENTION = (
    r"\text{softmax}\left(\frac{QK^T[:, -w:w]}{\sqrt{d_k}}\right)V[:, -w:w]"
)
SPARSE_ATTENTION = (
    r"\text{softmax}\left(\frac{QK^T[:, -n:n]}{\sqrt{d_k}}\right)V[:, -n:n]"
)

MODULE = """\
import torch
import torch.nn as nn
import torch.nn.functional as F

class SparseAttention(nn.Module):
    def __init__(self, d_k, n):
        super().__init__()
        self.d_k = d_k
        self.n = n

    def forward(self, Q, K, V):
        scores = Q.matmul(K.transpose(-2, -1)) / math.sqrt(self.d_k)
        scores = scores[:, -self.n:self.n]
        attn = F.softmax(scores, dim=-1)
        output = attn.matmul(V[:, -self.n:self.n])
        return output
"""


def run(source: str = MODULE, **names: Any) -> ModuleType:
    """Run printed source as a module of its own, as if it were a file.

    Args:
        source: Python source; the document's module by default.
        names: Names that the source finds already defined, such as ``math``.

    Returns:
        The module that the source defines.

    Example:
        >>> run().SparseAttention(64, 4)
        SparseAttention()
    """
    module = ModuleType("document")
    module.__dict__.update(names)
    exec(compile(source, "document.py", "exec"), module.__dict__)
    return module
