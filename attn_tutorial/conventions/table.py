"""What "window W" means elsewhere: one row a library, a model family or a kernel.

A row maps the value of a parameter to our pattern, or says why no pattern of ours is
the same. Each says how it is known: RUN, this package's tests compare it with the
library itself; READ, in the library's source, in the file named; DOCUMENTED, in its
documentation. A count of keys is that of a query far from both ends of the text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attn_tutorial.checks import check_count
from attn_tutorial.conventions.shapes import band, keys_of, shape_of
from attn_tutorial.patterns import (
    Pattern,
    adjacent_blocks,
    blocks,
    causal,
    local,
    parse,
    prefix,
)

__all__ = ["CONVENTIONS", "Convention", "as_table"]

RUN, READ, DOCUMENTED = "run", "read", "documented"
START, END, SAME = "top-left", "bottom-right", "equal lengths only"
Make = Callable[[object], Pattern]


@dataclass(frozen=True)
class Convention:
    """One parameter of one library, and what its value means.

    Attributes:
        name: What ``describe`` and ``convert`` call it.
        family: Library, models or kernel.
        parameter: The name of the parameter there.
        example: A value of it.
        make: Our pattern of a value; None where no pattern of ours is the same.
        alignment: Where queries stand if there are fewer than keys: they start
            together (top-left) or end together (bottom-right).
        evidence: "run", "read" or "documented".
        source: What was run or read.
        note: What else one has to know; why there is no pattern, where there is none.
        keys: How many keys an interior query meets, where there is no pattern.
    """

    name: str
    family: str
    parameter: str
    example: object
    make: Make | None
    alignment: str
    evidence: str
    source: str
    note: str = ""
    keys: str = ""

    def pattern(self, value: object) -> Pattern | None:
        """Our pattern of a value of the parameter, or None if there is none.

        Raises:
            TypeError, ValueError: If the library has no such value.
        """
        return self.make(value) if self.make else None

    def count(self, value: object) -> str:
        """How many keys an interior query meets."""
        pattern = self.pattern(value)
        shape = shape_of(pattern) if pattern is not None else None
        return keys_of(shape) if shape else self.keys


# Makers: from a value to our pattern.


def _count(value: object, least: int = 1) -> int:
    return check_count("value", value, least=least)


def _back(minus: int, none: Pattern | None = None) -> Make:
    """W keys back less ``minus``, itself included as the last."""

    def make(value: object) -> Pattern:
        if value is None and none is not None:
            return none
        return band(_count(value, least=minus) - minus, 0)

    return make


def _around(minus: int, none: Pattern | None = None) -> Make:
    """W less ``minus`` to each side."""

    def make(value: object) -> Pattern:
        if value is None and none is not None:
            return none
        return local(_count(value, least=minus) - minus)

    return make


def _half(value: object) -> Pattern:
    return local(_count(value, least=0) // 2)


def _half_even(value: object) -> Pattern:
    if _count(value, least=2) % 2:
        raise ValueError(f"value must be even, got {value}")
    return _half(value)


def _half_back(value: object) -> Pattern:
    return band(_count(value, least=2) // 2 - 1, 0)


def _pair(value: object) -> Pattern:
    """(left, right), both inclusive; -1 is no end."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"value must be (left, right), got {value!r}")
    ends = [check_count("value", end, least=-1) for end in value]
    return band(*(None if end == -1 else end for end in ends))


def _bounded_pair(value: object) -> Pattern:
    if isinstance(value, tuple | list) and any(end == -1 for end in value):
        raise ValueError(f"value must be at least 0 on both sides, got {value}")
    return _pair(value)


def _jax(value: object) -> Pattern:
    if value is None:
        return band(None, None)
    return _bounded_pair(value) if isinstance(value, tuple | list) else local(value)


def _sglang(value: object) -> Pattern:
    end = check_count("value", value, least=-1)
    return band(None if end == -1 else end, 0)


def _blocks(value: object) -> Pattern:
    return blocks(_count(value))


def _chunks(value: object) -> Pattern:
    return causal() if value is None else blocks(_count(value)) & causal()


def _three_blocks(value: object) -> Pattern:
    return adjacent_blocks(_count(value))


def _two_blocks(value: object) -> Pattern:
    return adjacent_blocks(_count(value)) & causal()


def _rotating(value: object) -> Pattern:
    """(size, keep): the first ``keep`` keys and the newest, ``size`` in all."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"value must be (size, keep), got {value!r}")
    size, keep = (check_count("value", number, least=0) for number in value)
    if keep >= size:
        raise ValueError(f"value must keep fewer than its size, got {value}")
    window = local((size - keep - 1, 0))
    return (prefix(keep) | window) & causal() if keep else window


def _given(value: object) -> Pattern:
    value = parse(value) if isinstance(value, str) else value
    if not isinstance(value, Pattern):
        raise TypeError(f"value must be a pattern of attn_tutorial, got {value!r}")
    return value


def _is_causal(value: object) -> Pattern:
    if not isinstance(value, bool):
        raise TypeError(f"value must be True or False, got {value!r}")
    return band(None, 0 if value else None)


def _always_causal(value: object) -> Pattern:
    if value is not None:
        _count(value)
    return causal()


HF = "transformers 5.23.0"

ROWS = (
    Convention(
        "hf.sliding_window",
        "Hugging Face: Mistral, Mixtral, Phi-3, Gemma 2 and 3, gpt-oss, Cohere 2, "
        "OLMo 3, Qwen with its gates open",
        "sliding_window",
        16,
        _back(1, none=causal()),
        END,
        RUN,
        HF,
        "None is no window",
    ),
    Convention(
        "hf.qwen.sliding_window",
        "Hugging Face: Qwen 2 and 3 with use_sliding_window=False, their default",
        "sliding_window",
        16,
        _always_causal,
        END,
        RUN,
        HF,
        "the value is ignored; layers below max_window_layers have no window either",
    ),
    Convention(
        "hf.gpt_neo.window_size",
        "Hugging Face: GPT-Neo, local layers",
        "window_size",
        16,
        _back(1),
        END,
        RUN,
        HF,
    ),
    Convention(
        "hf.recurrent_gemma.attention_window_size",
        "Hugging Face: RecurrentGemma, attention layers",
        "attention_window_size",
        16,
        _back(1),
        END,
        RUN,
        HF,
    ),
    Convention(
        "hf.gemma3_bidirectional.sliding_window",
        "Hugging Face: Gemma 3 with use_bidirectional_attention (EmbeddingGemma)",
        "sliding_window",
        16,
        _half,
        SAME,
        RUN,
        HF,
        "the value of the file; once loaded the attribute holds W // 2 + 1",
    ),
    Convention(
        "hf.sliding_window_bidirectional_overlay",
        "Hugging Face: the mask function of encoders",
        "sliding_window",
        16,
        _around(0),
        END,
        RUN,
        "transformers.masking_utils 5.23.0",
    ),
    Convention(
        "hf.modernbert.local_attention",
        "Hugging Face: ModernBERT",
        "local_attention",
        16,
        _half,
        SAME,
        RUN,
        HF,
    ),
    Convention(
        "hf.modernbert_decoder.local_attention",
        "Hugging Face: ModernBERT decoder",
        "local_attention",
        16,
        _half_back,
        END,
        RUN,
        HF,
        "half of the encoder's reach, itself included",
    ),
    Convention(
        "hf.longformer.attention_window",
        "Hugging Face: Longformer",
        "attention_window",
        16,
        _half_even,
        SAME,
        RUN,
        HF,
        "global tokens, an input of the model, come on top",
    ),
    Convention(
        "hf.led.attention_window",
        "Hugging Face: LED, encoder",
        "attention_window",
        16,
        _half_even,
        SAME,
        RUN,
        HF,
        "global tokens, an input of the model, come on top; its decoder is causal",
    ),
    Convention(
        "hf.longt5.local_radius",
        "Hugging Face: LongT5, encoder_attention_type='local'",
        "local_radius",
        15,
        _around(0),
        SAME,
        RUN,
        HF,
        "unlike its neighbours a radius",
    ),
    Convention(
        "hf.longt5.transient_global",
        "Hugging Face: LongT5, encoder_attention_type='transient-global'",
        "local_radius",
        15,
        None,
        SAME,
        RUN,
        HF,
        "each query also meets one summary a block, which is the mean of its tokens: "
        "through them every key is seen, but not as a key",
        "2r + 1 and a summary a block",
    ),
    Convention(
        "hf.llama4.attention_chunk_size",
        "Hugging Face: Llama 4, layers with rotary positions",
        "attention_chunk_size",
        16,
        _chunks,
        END,
        RUN,
        HF,
    ),
    Convention(
        "hf.pegasus_x.block_size",
        "Hugging Face: PEGASUS-X, encoder, stagger_local_blocks=False",
        "block_size",
        16,
        _blocks,
        SAME,
        RUN,
        HF,
        "learned global tokens, which are not tokens of the text, come on top; by "
        "default every second layer's blocks are shifted by half a block",
    ),
    Convention(
        "hf.bigbird.block_size",
        "Hugging Face: BigBird, attention_type='block_sparse', eval mode",
        "block_size",
        16,
        None,
        SAME,
        RUN,
        HF,
        "the last block is global too, wherever the text ends, and in eval mode the "
        "random blocks all are block 0, which so weighs more than once",
        "5 blocks",
    ),
    Convention(
        "flash_attn.window_size",
        "flash-attn: flash_attn_func",
        "window_size",
        (16, 0),
        _pair,
        END,
        DOCUMENTED,
        "Dao-AILab/flash-attention README.md",
        "both ends inclusive, -1 is no end; bottom-right since 2.1",
    ),
    Convention(
        "flash_attn.varlen.window_size",
        "flash-attn: flash_attn_varlen_func",
        "window_size",
        (16, 0),
        _pair,
        END,
        DOCUMENTED,
        "Dao-AILab/flash-attention flash_attn/flash_attn_interface.py, its docstring",
        "in each document of cu_seqlens: documents(lengths) & this",
    ),
    Convention(
        "torch.varlen_attn.window_size",
        "PyTorch: torch.nn.attention.varlen.varlen_attn",
        "window_size",
        (16, 0),
        _pair,
        END,
        READ,
        "torch/nn/attention/varlen.py 2.13.0; CUDA only",
        "in each document of cu_seq: documents(lengths) & this",
    ),
    Convention(
        "torch.sdpa.attn_mask",
        "PyTorch: scaled_dot_product_attention",
        "attn_mask",
        "local 15,0",
        _given,
        START,
        RUN,
        "torch 2.13.0",
        "it has no window: any pattern is passed as a matrix, True = attend",
    ),
    Convention(
        "torch.sdpa.is_causal",
        "PyTorch: scaled_dot_product_attention",
        "is_causal",
        True,
        _is_causal,
        START,
        RUN,
        "torch 2.13.0",
    ),
    Convention(
        "torch.flex.mask_mod",
        "PyTorch: FlexAttention",
        "mask_mod",
        "local 15,0",
        _given,
        START,
        RUN,
        "torch 2.13.0",
        "our patterns are such functions",
    ),
    Convention(
        "attn_gym.sliding_window",
        "attention-gym: generate_sliding_window",
        "window_size",
        16,
        _back(0),
        START,
        RUN,
        "attn-gym 0.0.17",
    ),
    Convention(
        "natten.kernel_size",
        "NATTEN: na1d",
        "kernel_size",
        7,
        None,
        SAME,
        RUN,
        "natten 0.21.7, backend='flex-fna'",
        "at the edges the window is shifted inwards, so that every query keeps as "
        "many keys; an even size reaches one further back than ahead",
        "as many as kernel_size, at the edges too",
    ),
    Convention(
        "natten.kernel_size.causal",
        "NATTEN: na1d, is_causal=True",
        "kernel_size",
        7,
        _back(1),
        SAME,
        RUN,
        "natten 0.21.7, backend='flex-fna'",
    ),
    Convention(
        "jax.local_window_size",
        "JAX: jax.nn.dot_product_attention",
        "local_window_size",
        16,
        _jax,
        START,
        RUN,
        "jax 0.10.2, implementation='xla'",
        "W is (W, W), with is_causal=True (W, 0); both ends inclusive",
    ),
    Convention(
        "keras.sliding_window",
        "Keras: MultiHeadAttention",
        "sliding_window",
        16,
        _around(1, none=band(None, None)),
        START,
        RUN,
        "keras 3.15.1, on its PyTorch backend",
        "2W - 1 keys",
    ),
    Convention(
        "keras.sliding_window.causal",
        "Keras: MultiHeadAttention, use_causal_mask=True",
        "sliding_window",
        16,
        _back(1, none=causal()),
        START,
        RUN,
        "keras 3.15.1, on its PyTorch backend",
    ),
    Convention(
        "onnx.attention.window_size",
        "ONNX: Attention, opset 25",
        "(left_window_size, right_window_size)",
        (15, 0),
        _pair,
        START,
        RUN,
        "onnx 1.23.2, its reference implementation",
        "both ends inclusive, -1 is no end; with a cache queries stand behind it",
    ),
    Convention(
        "vllm.decoder",
        "vLLM: decoders, FlashAttention backend",
        "sliding_window",
        16,
        _back(1, none=causal()),
        END,
        READ,
        "vllm-project/vllm vllm/v1/attention/backends/flash_attn.py @0084b78",
        "passed on as (W - 1, 0)",
    ),
    Convention(
        "vllm.encoder",
        "vLLM: encoders, FlashAttention backend",
        "sliding_window",
        16,
        _around(1, none=band(None, None)),
        END,
        READ,
        "vllm-project/vllm vllm/v1/attention/backends/flash_attn.py @0084b78",
        "passed on as (W - 1, W - 1)",
    ),
    Convention(
        "sglang.sliding_window_size",
        "SGLang: RadixAttention",
        "sliding_window_size",
        15,
        _sglang,
        END,
        READ,
        "sgl-project/sglang python/sglang/srt/layers/attention/"
        "flashattention_backend.py @003e7b7, python/sglang/srt/models/gemma2.py",
        "its models subtract 1 from Hugging Face's W; -1 is no window",
    ),
    Convention(
        "llama_cpp.n_swa.standard",
        "llama.cpp: LLAMA_SWA_TYPE_STANDARD",
        "n_swa",
        16,
        _back(1),
        END,
        READ,
        "ggml-org/llama.cpp src/llama-hparams.cpp @01b77b5, is_masked_swa",
        "with causal attention",
    ),
    Convention(
        "llama_cpp.n_swa.chunked",
        "llama.cpp: LLAMA_SWA_TYPE_CHUNKED",
        "n_swa",
        16,
        _chunks,
        END,
        READ,
        "ggml-org/llama.cpp src/llama-hparams.cpp @01b77b5, is_masked_swa",
        "with causal attention",
    ),
    Convention(
        "llama_cpp.n_swa.symmetric",
        "llama.cpp: LLAMA_SWA_TYPE_SYMMETRIC",
        "n_swa",
        16,
        _half,
        END,
        READ,
        "ggml-org/llama.cpp src/llama-hparams.cpp @01b77b5, is_masked_swa",
        "without causal attention",
    ),
    Convention(
        "mlx_lm.window_size",
        "MLX: mlx_lm, create_causal_mask",
        "window_size",
        16,
        _back(1, none=causal()),
        END,
        RUN,
        "mlx-lm 0.32.2",
        "queries stand at offset, behind the cache",
    ),
    Convention(
        "mlx_lm.rotating_cache",
        "MLX: mlx_lm, RotatingKVCache, token by token",
        "(max_size, keep)",
        (8, 2),
        _rotating,
        END,
        RUN,
        "mlx-lm 0.32.2",
        "the first keys count as part of the size",
    ),
    Convention(
        "xformers.local_attention",
        "xFormers: LocalAttentionFromBottomRightMask",
        "(window_left, window_right)",
        (8, 3),
        _bounded_pair,
        END,
        RUN,
        "xformers 0.0.35",
    ),
    Convention(
        "xformers.lower_triangular_local",
        "xFormers: LowerTriangularFromBottomRightLocalAttentionMask, "
        "BlockDiagonalMask.make_local_attention",
        "window_size",
        8,
        _back(1),
        END,
        RUN,
        "xformers 0.0.35",
    ),
    Convention(
        "local_attention.exact.causal",
        "local-attention: exact_windowsize=True, causal=True",
        "window_size",
        8,
        _back(0),
        SAME,
        RUN,
        "local-attention 1.11.2",
    ),
    Convention(
        "local_attention.exact",
        "local-attention: exact_windowsize=True, causal=False",
        "window_size",
        8,
        _around(0),
        SAME,
        RUN,
        "local-attention 1.11.2",
    ),
    Convention(
        "local_attention.causal",
        "local-attention: causal=True, its default window",
        "window_size",
        8,
        _two_blocks,
        SAME,
        RUN,
        "local-attention 1.11.2",
        "as many keys as the place in its block allows",
    ),
    Convention(
        "local_attention",
        "local-attention: causal=False, its default window",
        "window_size",
        8,
        _three_blocks,
        SAME,
        RUN,
        "local-attention 1.11.2",
    ),
)
CONVENTIONS = {row.name: row for row in ROWS}


def as_table() -> str:
    """All conventions as a table in Markdown.

    Example:
        >>> print(as_table().splitlines()[2][:65])
        | Hugging Face: Mistral, Mixtral, Phi-3, Gemma 2 and 3, gpt-oss,
    """
    head = "family | parameter | value | keys | our pattern | unequal lengths | known"
    rows = [head, " | ".join(["---"] * 7), *map(_line, ROWS)]
    return "\n".join(f"| {row} |" for row in rows)


def _line(row: Convention) -> str:
    pattern = row.pattern(row.example)
    ours = f"`{pattern}`" if pattern is not None else f"none: {row.note}"
    ours = ours.replace("|", "\\|")
    value = str(row.example).replace("|", "\\|")
    known = f"{row.evidence}: {row.source}"
    cells = [row.family, f"`{row.parameter}`", value, row.count(row.example), ours]
    return " | ".join([*cells, row.alignment, known])
