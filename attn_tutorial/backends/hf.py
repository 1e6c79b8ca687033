"""This package's attention inside the models of Hugging Face Transformers.

``with hf.use(model):`` lets a model attend by tiles where it has a window, blocks or
packed documents, and by PyTorch's fused attention elsewhere; the numbers stay the same.
``with hf.use(model, window=w):`` narrows every layer. Nothing is copied or converted,
and after the block the model is as before::

    from attn_tutorial.backends import hf

    with hf.use(model) as served:
        model.generate(tokens)
    print(served)

A model that does more to its scores than to mask them is refused, by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attn_tutorial.backends.hf_masks import Mask
from attn_tutorial.checks import check_window
from attn_tutorial.online import merge_attention
from attn_tutorial.runs import run_attention

if TYPE_CHECKING:
    import transformers

__all__ = ["Served", "use"]

OLDEST, BEYOND = (5, 23), (5, 25)
NUMBERS = count()

# Arguments of Transformers' attention functions that leave the result as it is, because
# the mask says the same or because they are meant for others.
HARMLESS = {
    "deterministic",
    "is_causal",
    "logits_to_keep",
    "num_items_in_batch",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "s_aux",
    "sliding_window",
    "use_cache",
}
# And some that do not, with the reason.
REFUSED = {
    "softcap": "a soft cap bends the scores before the softmax",
    "position_bias": "a learned bias is added to the scores",
    "cache": "its keys lie in pages",
    "indices": "it chooses the keys of each query by an index",
    "block_indices": "it chooses the keys of each query by an index",
    "cu_seq_lens_q": "only flash kernels read where documents end from it",
    "cu_seq_lens_k": "only flash kernels read where documents end from it",
    "output_attentions": "the weights are never kept",
}


@contextmanager
def use(
    model: transformers.PreTrainedModel, window: int | tuple[int, int] | None = None
) -> Iterator[Served]:
    """Let a model of Transformers attend by this package, inside the block.

    Args:
        model: A ``transformers.PreTrainedModel``, of an encoder or a decoder.
        window: w or (left, right) as in ``local_attention``: hide also what is farther
            from the query, in every layer. A causal model then meets w + 1 keys, its
            own among them; a config that says ``sliding_window=W`` means w = W - 1.

    Yields:
        What served each layer, filled while the model computes.

    Raises:
        ImportError: If Transformers is missing, or a release that was not checked.
        TypeError: If model is no model of Transformers, or window no integer.
        ValueError: If the model does not call the function that it is given, or gives
            it more than queries, keys, values and a mask; if window < 0, or a window
            is asked of a model in which it has no meaning.
    """
    _check_release()
    window = None if window is None else check_window(window)
    _check_model(model, window)
    layers = {module: name for name, module in model.named_modules() if name}
    served = Served(f"attn_tutorial_{next(NUMBERS)}", window, layers)
    configs = _configs(model)
    before = [config._attn_implementation for config in configs]
    hook = model.register_forward_hook(served.check_called)
    try:
        _register(served)
        model.set_attn_implementation(served.name)
        yield served
    finally:
        hook.remove()
        for config, old in zip(configs, before, strict=True):
            config._attn_implementation = old
        _forget(served)


def _check_release() -> None:
    try:
        from transformers import __version__ as release
    except ImportError:
        raise ImportError(
            'hf.use needs Transformers: pip install "attn_tutorial[hf]"'
        ) from None
    if not OLDEST <= tuple(map(int, release.split(".")[:2])) < BEYOND:
        raise ImportError(
            f"hf.use reads masks as transformers 5.23 and 5.24 make them, got "
            f'{release}: pip install "transformers>=5.23,<5.25"'
        )


def _check_model(
    model: transformers.PreTrainedModel, window: tuple[int, int] | None
) -> None:
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"model must be a transformers.PreTrainedModel, got {type(model).__name__}"
        )
    for part in model.modules():
        is_model = isinstance(part, PreTrainedModel)
        if is_model and not part._can_set_attn_implementation():
            _refuse_own_attention(part)
    config = model.config
    crosses = config.is_encoder_decoder or getattr(config, "add_cross_attention", False)
    if window is not None and crosses:
        raise ValueError(
            f"window must be None for {type(model).__name__}, got {window}: its "
            "decoder also attends to the encoder, where distances have no meaning"
        )


def _refuse_own_attention(model: torch.nn.Module) -> None:
    raise ValueError(
        "model must call the attention function that its config names; "
        f"{type(model).__name__} never does: it has attention of its own"
    )


def _configs(model: transformers.PreTrainedModel) -> list:
    """The configs of a model and of its parts, the outer ones first."""
    found = [part.config for part in model.modules() if hasattr(part, "config")]
    return list({id(config): config for config in found}.values())


def _register(served: Served) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(served.name, served.attend)
    AttentionMaskInterface.register(served.name, served.mask)


def _forget(served: Served) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    for interface in (AttentionInterface, AttentionMaskInterface):
        interface._global_mapping.pop(served.name, None)


@dataclass
class Served:
    """What a model's layers were served with, and the two functions that serve them.

    Attributes:
        name: What the model's config names meanwhile as its attention.
        window: The window (left, right) that holds in every layer, or None.
        layers: The name of each of the model's modules.
        calls: How often each pair of a layer's name and what served it occurred.
    """

    name: str
    window: tuple[int, int] | None
    layers: dict[torch.nn.Module, str] = field(repr=False)
    calls: dict[tuple[str, str], int] = field(default_factory=Counter)

    def __str__(self) -> str:
        """A line for each layer and each way in which it was served."""
        rows = [(layer, how, f"{n}x") for (layer, how), n in self.calls.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join(lines) or "No layer has attended yet."

    def mask(self, **options: Any) -> Mask:
        """Stand in for ``sdpa_mask``: make no matrix. A mask made before comes back."""
        made = options["attention_mask"]
        return made if isinstance(made, Mask) else Mask.of(options, self.window)

    def attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Mask | Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """Stand in for ``sdpa_attention_forward``.

        Args:
            module: The layer that asks.
            query: Shape (batch, heads, n_q, d).
            key: Shape (batch, heads of keys, n_k, d).
            value: Shape (batch, heads of keys, n_k, d_v).
            attention_mask: A ``Mask``, or whatever mask the model was given.
            dropout: Must be 0.
            scaling: Factor of the scores, by default 1 / sqrt(d).
            options: What else the layer passes; checked.

        Returns:
            Shape (batch, n_q, heads, d_v), and None in place of the weights.
        """
        self._check_options(module, dropout, options)
        lengths = query.shape[2], key.shape[2]
        self._check_mask(module, attention_mask, lengths, options.get("is_causal"))
        sinks = options.get("s_aux")
        if _by_tiles(attention_mask, sinks):
            self._count(module, f"{attention_mask.pattern} by tiles")
            return tiles(query, key, value, attention_mask, scaling, sinks), None
        if sinks is not None:
            self._refuse(module, "has sinks and a mask of no known pattern")
        self._count(module, _dense_name(attention_mask))
        qkv, is_causal = (query, key, value), options.get("is_causal")
        if isinstance(attention_mask, Mask):
            return fused(module, qkv, scaling, *attention_mask.dense()), None
        return fused(module, qkv, scaling, attention_mask, is_causal), None

    def _check_options(self, module: Any, dropout: float, options: dict) -> None:
        if dropout:
            self._refuse(module, f"drops weights in training, dropout={dropout}")
        for name, value in options.items():
            if name not in HARMLESS and value is not None and value is not False:
                reason = REFUSED.get(name, "what it does is not known here")
                self._refuse(module, f"passes {name}: {reason}")

    def _check_mask(self, module: Any, mask: Any, lengths: tuple, said: Any) -> None:
        if not isinstance(mask, Mask):
            if self.window is not None:
                self._refuse(module, "brings no mask that a window could narrow")
            return
        if lengths != mask.lengths:
            self._refuse(module, f"has {lengths} queries and keys, its mask others")
        if None not in (said, mask.is_causal) and said != mask.is_causal:
            self._refuse(module, f"passes is_causal={said}, unlike its mask")

    def _refuse(self, module: torch.nn.Module, what: str) -> None:
        raise ValueError(
            f"model must be served with queries, keys, values and a mask alone; "
            f"{type(module).__name__} {self.layers.get(module, '')} {what}"
        )

    def _count(self, module: torch.nn.Module, how: str) -> None:
        self.calls[self.layers.get(module, type(module).__name__), how] += 1

    def check_called(self, model: torch.nn.Module, *_: Any) -> None:
        """Refuse a model that has computed without ever asking; a forward hook."""
        if not self.calls and model.config._attn_implementation == self.name:
            _refuse_own_attention(model)


def _by_tiles(mask: Mask | Tensor | None, sinks: Tensor | None) -> bool:
    known = isinstance(mask, Mask) and mask.pattern is not None
    return known and (mask.cuts or sinks is not None)


def _dense_name(mask: Mask | Tensor | None) -> str:
    if not isinstance(mask, Mask):
        return "no mask by SDPA" if mask is None else "a given mask by SDPA"
    return f"{mask.pattern or 'an unknown pattern'} by SDPA"


def tiles(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Mask,
    scaling: float | None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention under a mask's pattern, its heads of keys shared and not copied.

    Args:
        query: Shape (batch, heads, n_q, d).
        key: Shape (batch, heads of keys, n_k, d).
        value: Shape (batch, heads of keys, n_k, d_v).
        mask: Its pattern must be known.
        scaling: Factor of the scores, by default 1 / sqrt(d).
        sinks: One score a head, (heads,), of a key more that has the value zero.

    Returns:
        Shape (batch, n_q, heads, d_v).
    """
    q = query.unflatten(1, (key.shape[1], -1))  # (B, H_kv, H / H_kv, n_q, d)
    k, v = key[:, :, None], value[:, :, None]
    keep = mask.key_keep
    options = {"first": mask.first, "scale": scaling}
    options["key_keep"] = None if keep is None else keep[:, None, None]
    if sinks is None:
        output = run_attention(q, k, v, mask.pattern, **options)
    else:
        output, lse = run_attention(q, k, v, mask.pattern, return_lse=True, **options)
        output = _with_sinks(output, lse[..., None], sinks)
    return output.flatten(1, 2).transpose(1, 2).contiguous()


def _with_sinks(output: Tensor, lse: Tensor, sinks: Tensor) -> Tensor:
    """A sink takes its share of the weight and gives no value for it."""
    sinks = sinks.to(lse).view(*output.shape[1:3], 1, 1)
    merged, _ = merge_attention(output, lse, output.new_zeros(()), sinks)
    return merged.to(output.dtype)


def fused(
    module: torch.nn.Module,
    qkv: tuple[Tensor, Tensor, Tensor],
    scaling: float | None,
    matrix: Tensor | None,
    is_causal: bool | None,
) -> Tensor:
    """PyTorch's fused attention, as Transformers calls it.

    Args:
        module: The layer that asks.
        qkv: As in ``tiles``.
        scaling: Factor of the scores, by default 1 / sqrt(d).
        matrix: A mask of four axes, or None.
        is_causal: Whether no matrix means causality; None leaves it to the module.

    Returns:
        Shape (batch, n_q, heads, d_v).
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    options = {"scaling": scaling, "is_causal": is_causal}
    return sdpa_attention_forward(module, *qkv, matrix, **options)[0]
