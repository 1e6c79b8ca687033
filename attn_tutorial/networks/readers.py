"""Transformers that read a text or a sound as a whole: one label, or its letters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss

from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.transformer import Transformer

__all__ = ["BLANK", "Classifier", "Recogniser", "best_path", "letters_loss"]

BLANK = 0
IMPOSSIBLE = -1e9  # a score; finite, so that gradients are


class Classifier(Transformer):
    """A Transformer that names one label for a whole text.

    The label is read off the mean over the text's tokens, to which each contributes,
    whatever its window.

    Args:
        *sizes: As for ``Transformer``.
        padding: Token that fills up a text; never attended, and not in the mean.
        **options: As for ``Transformer``.

    Example:
        >>> model = Classifier(10, 4, d_model=16, num_heads=2, num_layers=1)
        >>> model(torch.ones(3, 5, dtype=torch.long)).shape
        torch.Size([3, 1, 4])
    """

    def __init__(self, *sizes: int, padding: int = 0, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.padding = padding

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (batch, n) to scores (batch, 1, num_labels)."""
        keep = tokens != self.padding
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, key_keep=keep)
        total = (self.norm(x) * keep[..., None]).sum(-2)
        mean = total / keep.sum(-1, keepdim=True).clamp(min=1)
        return self.head(mean)[:, None]


class Recogniser(Transformer):
    """A Transformer that hears features and scores, at each token, letters or none.

    Trained with ``letters_loss``, which asks only for the letters' order.

    Args:
        num_features: Numbers that describe a token of sound.
        num_letters: Letters, numbered from 1; ``BLANK`` is 0.
        *sizes: As for ``Transformer``, from ``d_model`` on.
        **options: As for ``Transformer``.

    Example:
        >>> model = Recogniser(120, 40, 16, 2, 1)
        >>> sound, keep = torch.randn(3, 50, 120), torch.ones(3, 50, dtype=torch.bool)
        >>> model(sound, keep).shape
        torch.Size([3, 50, 41])
    """

    def __init__(
        self, num_features: int, num_letters: int, *sizes: int, **options: Any
    ) -> None:
        super().__init__(1, num_letters + 1, *sizes, **options)
        self.embedding = nn.Linear(num_features, self.norm.normalized_shape[0])

    def forward(self, sound: Tensor, keep: Tensor) -> Tensor:
        """Score the letters at each token.

        Args:
            sound: Features, shape (batch, n, num_features).
            keep: Bool, shape (batch, n); False = padding, at the end.

        Returns:
            Shape (batch, n, 1 + num_letters); padding is ``BLANK`` for certain.
        """
        x = self.embed(sound)
        for block in self.blocks:
            x = block(x, key_keep=keep)
        scores = self.head(self.norm(x))
        silence = torch.full_like(scores[:1, :1], IMPOSSIBLE)
        silence[..., BLANK] = 0
        return torch.where(keep[..., None], scores, silence)


def letters_loss(scores: Tensor, letters: Tensor) -> Tensor:
    """Connectionist temporal classification (Graves et al., 2006), for each letter.

    -log of the probability of all ways to place the letters, in their order, on the
    tokens: a letter may last for several, and ``BLANK`` stand between.

    Args:
        scores: What ``Recogniser`` returns, shape (batch, n, 1 + num_letters).
        letters: Shape (batch, m), with ``IGNORE`` where a text is filled up.

    Returns:
        The mean over the texts of the loss over the number of letters. A text with too
        many letters for its tokens counts as 0.
    """
    lengths = (letters != IGNORE).sum(-1)
    heard = torch.full_like(lengths, scores.shape[1])
    logs = scores.log_softmax(-1).transpose(0, 1)  # (n, batch, letters)
    return ctc_loss(
        logs, letters.clamp(min=0), heard, lengths, blank=BLANK, zero_infinity=True
    )


def best_path(scores: Tensor) -> list[list[int]]:
    """Letters of the likeliest label at each token: repeats are one, blanks are none.

    Example:
        >>> labels = torch.tensor([[0, 3, 3, 0, 3, 2, 0]])
        >>> best_path(torch.nn.functional.one_hot(labels))
        [[3, 3, 2]]
    """
    rows = [torch.unique_consecutive(row).tolist() for row in scores.argmax(-1)]
    return [[label for label in row if label != BLANK] for row in rows]
