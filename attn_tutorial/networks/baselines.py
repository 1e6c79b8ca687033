"""Three ways to let tokens hear each other, bare: recurrence, convolution, attention.

The layers of Table 1 in Vaswani et al. (2017), of equal width and with the same
interface, so that their costs can be counted and compared: no biases, no gates, no
residual connections. ``sequential_products`` measures how much of a computation has to
happen one step after another.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attn_tutorial.checks import check_count
from attn_tutorial.dense import attention

__all__ = ["Convolution", "Recurrence", "SelfAttention", "sequential_products"]


class Recurrence(nn.Module):
    """One state that reads the tokens in order: h_i = tanh(W x_i + U h_(i-1)).

    Parameters: 2 d^2. FLOPs: 4 n d^2.

    Args:
        d: Width of a token and of the state.

    Example:
        >>> Recurrence(8)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        d = check_count("d", d, least=1)
        self.input = nn.Linear(d, d, bias=False)
        self.state = nn.Linear(d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n, d) to the n states, (..., n, d)."""
        driven = self.input(x)  # all tokens at once
        states, state = [], torch.zeros_like(driven[..., 0, :])
        for i in range(x.shape[-2]):  # one token after the other
            state = torch.tanh(driven[..., i, :] + self.state(state))
            states.append(state)
        return torch.stack(states, -2)

    def after(self, x: Tensor, rounds: int) -> Tensor:
        """Update all states at once, ``rounds`` times, each from its neighbour's last.

        In one round a state hears one token further back; after n rounds nothing
        changes any more, and the states are those of ``forward``.
        """
        driven = self.input(x)
        states = torch.zeros_like(driven)
        for _ in range(rounds):
            before = nn.functional.pad(states, (0, 0, 1, 0))[..., :-1, :]
            states = torch.tanh(driven + self.state(before))
        return states


class Convolution(nn.Module):
    """Each token mixes k tokens: itself and k - 1 before it, ``dilation`` steps apart.

    y_i = tanh(sum over t < k of W_t x_(i - t * dilation)). Parameters: k d^2.
    FLOPs: 2 k n d^2, counting the zeros that stand before the first token.

    Args:
        d: Width of a token.
        kernel_size: k, how many tokens are mixed.
        dilation: Distance between them.

    Example:
        >>> Convolution(8, kernel_size=3)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, d: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__()
        d = check_count("d", d, least=1)
        size = check_count("kernel_size", kernel_size, least=1)
        dilation = check_count("dilation", dilation, least=1)
        self.kernel = nn.Conv1d(d, d, size, dilation=dilation, bias=False)
        self.reach = (size - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, n, d) to (batch, n, d)."""
        padded = nn.functional.pad(x.mT, (self.reach, 0))
        return torch.tanh(self.kernel(padded)).mT


class SelfAttention(nn.Module):
    """Each token mixes all tokens, by weights that it computes: Eq. (1), one head.

    Parameters: 4 d^2. FLOPs: 8 n d^2 + 4 n^2 d.

    Args:
        d: Width of a token.

    Example:
        >>> SelfAttention(8)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        d = check_count("d", d, least=1)
        self.query = nn.Linear(d, d, bias=False)
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        self.output = nn.Linear(d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n, d) to (..., n, d)."""
        return self.output(attention(self.query(x), self.key(x), self.value(x)))


PRODUCTS = ("Mm", "Addmm", "Bmm", "Baddbmm", "Mv", "Convolution")


def sequential_products(output: Tensor) -> int:
    """Count the matrix products that had to run one after another to get ``output``.

    The longest chain of products in the graph that autograd recorded. Two products
    on one chain cannot run at the same time, so the chain bounds the time from below,
    however many processors there are.

    Args:
        output: A result that requires a gradient.

    Returns:
        Products on the longest chain.

    Raises:
        ValueError: If autograd recorded nothing for output.

    Example:
        >>> x = torch.ones(2, 2, requires_grad=True)
        >>> sequential_products(x @ x @ x + x @ x)  # x @ x twice at once, then one more
        2
    """
    if output.grad_fn is None:
        raise ValueError("output must be computed from a tensor that requires_grad")
    longest: dict = {}  # node of the graph -> products up to and including it
    waiting = [output.grad_fn]
    while waiting:  # inputs first, and without recursion: the graph is deep
        node = waiting[-1]
        inputs = [before for before, _ in node.next_functions if before is not None]
        missing = [before for before in inputs if before not in longest]
        waiting.extend(missing)
        if not missing:
            earlier = max((longest[before] for before in inputs), default=0)
            longest[node] = earlier + node.name().startswith(PRODUCTS)
            waiting.pop()
    return longest[output.grad_fn]
