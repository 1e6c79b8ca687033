"""Offsets, two sides, shared heads, padding, log-sum-exp: against float64 formulas."""

import math
import pickle
import random

import pytest
import torch

import attn_tutorial as at
from attn_tutorial import patterns as P
from attn_tutorial.networks.dispatch import pattern_attention
from attn_tutorial.online import merge_attention
from attn_tutorial.tiled import tiled_attention

LEADING = [((), ()), ((2,), (2,)), ((2, 4), (2, 1)), ((3, 2), (1, 2)), ((1, 3), (2, 3))]


def tensors(draw, d, d_v):
    """Random lengths, offset, and q, k, v, of which heads may share keys."""
    n_q, n_k = draw.randint(1, 90), draw.randint(1, 90)
    of_q, of_k = draw.choice(LEADING)
    shapes = (*of_q, n_q, d), (*of_k, n_k, d), (*of_k, n_k, d_v)
    q, k, v = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    return draw.randint(-30, n_k + 30), q, k, v


def routine(draw):
    """A routine with its pattern; of each family a random member."""
    causal, kind = draw.random() < 0.4, draw.choice(["local", "blocks", "runs"])
    if kind == "local":
        sides = draw.randint(0, 20), draw.randint(0, 20)
        window = draw.choice([draw.randint(0, 100), sides])
        pattern, call = P.local(window), at.local_attention
        options = {"window": window, "causal": causal}
    elif kind == "blocks":
        size = draw.randint(1, 100)
        pattern, call = P.adjacent_blocks(size), at.sparse_attention
        options = {"block_size": size, "causal": causal}
    else:
        mine = P.Pattern("mine", keep=lambda i, j: (i * j) % 3 != 0)
        near = P.prefix(3) | P.local((9, 0))
        several = [P.blocks(draw.randint(1, 40)), P.documents([10, 0, 30, 20])]
        pattern = draw.choice([*several, P.local(5) & mine, near])
        pattern = pattern & P.causal() if causal else pattern
        return pattern, tiled_attention, {"tiles": (), "pattern": pattern}
    return (pattern & P.causal() if causal else pattern), call, options


def formula(q, k, v, keep):
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~keep, -math.inf)
    lse = scores.logsumexp(-1)
    shift = lse.masked_fill(lse == -math.inf, 0)[..., None]
    return torch.where(keep, (scores - shift).exp(), 0) @ v, lse


def padding(draw, k):
    """None, or which keys are real, for all heads or for each."""
    if draw.random() < 0.5:
        return None
    return torch.rand(draw.choice([k.shape[-2:-1], k.shape[:-1]])) < 0.6


@pytest.mark.parametrize("seed", range(60))
def test_any_offset_equals_the_formula(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    first, q, k, v = tensors(draw, draw.choice([1, 4]), draw.choice([1, 3]))
    pattern, call, options = routine(draw)
    real = padding(draw, k)
    keep = at.dense_mask(pattern, q.shape[-2], k.shape[-2], first=first)
    hidden = [k, v]
    if real is not None:
        keep = keep & real[..., None, :]
        hidden = [torch.where(real[..., None], x, math.nan) for x in (k, v)]
    options |= {"first": first, "key_keep": real, "scale": q.shape[-1] ** -0.5}
    found = call(q, *hidden, **options, return_lse=True)
    wanted = formula(q, k, v, keep)
    some = wanted[1].isfinite()
    gradients = []
    upstream = torch.randn_like(found[0]), torch.randn_like(found[1])
    for output, lse in (found, wanted):
        loss = (output * upstream[0]).sum() + (lse * upstream[1])[some].sum()
        gradients.append(torch.autograd.grad(loss, (q, k, v)))
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)
    wanted = [torch.nan_to_num(x) for x in gradients[1]]
    torch.testing.assert_close(list(gradients[0]), wanted, atol=1e-11, rtol=1e-11)


def test_one_new_query_equals_the_last_row():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 10, 8, dtype=torch.float64)
    mine = P.Pattern("mine", keep=lambda i, j: (i + j) % 3 > 0)
    for pattern in (P.causal() & P.local(2), P.adjacent_blocks(3), P.causal(), mine):
        whole = pattern_attention(q, k, v, pattern)
        last = pattern_attention(q[..., 9:, :], k, v, pattern, first=9)
        torch.testing.assert_close(last, whole[..., 9:, :])
        with pytest.raises(ValueError, match=r"first=0 .* first=9 "):
            pattern_attention(q[..., 9:, :], k, v, pattern)


def test_parts_over_disjoint_keys_merge_exactly():
    q, k, v = torch.randn(3, 2, 50, 8, dtype=torch.float64)
    options = {"causal": True, "return_lse": True}
    whole, lse = at.local_attention(q, k, v, 20, **options)
    parts = []
    for some in (slice(0, 17), slice(17, 50)):
        real = torch.zeros(50, dtype=torch.bool)
        real[some] = True
        output, part = at.local_attention(q, k, v, 20, key_keep=real, **options)
        parts += [output, part[..., None]]
    output, both = merge_attention(*parts)
    torch.testing.assert_close(output, whole)
    torch.testing.assert_close(both[..., 0], lse)


def test_a_learned_sink_is_one_more_key_without_a_value():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 30, 4, dtype=torch.float64)
    sink = torch.randn(2, 1, dtype=torch.float64, requires_grad=True)
    output, lse = at.local_attention(q, k, v, 5, causal=True, return_lse=True)
    ours = output * (lse - torch.logaddexp(lse, sink)).exp()[..., None]
    keep = at.dense_mask(P.local(5) & P.causal(), 30)
    scores = (q @ k.mT / 2).masked_fill(~keep, -math.inf)
    scores = torch.cat([scores, sink[..., None].expand(2, 30, 1)], -1)
    theirs = scores.softmax(-1)[..., :-1] @ v
    torch.testing.assert_close(ours, theirs)
    both = [torch.autograd.grad(x.square().sum(), sink)[0] for x in (ours, theirs)]
    torch.testing.assert_close(*both)


TEXTS = [
    "full",
    "local 16 & causal",
    "(prefix 4 | local 16,0) & causal",
    "documents 5,7,3",
    "documents 5,",
    "shifted 5 (local 4 | global_tokens 2)",
    "dilated 2 3",
    "strided 7",
    "blocks 8 & causal",
    "adjacent_blocks 8",
    "random_blocks 4 8 2 0",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_and_storage_return_the_same_pattern(text):
    pattern = P.parse(text)
    assert str(pattern) == text
    for other in (pickle.loads(pickle.dumps(pattern)), P.parse(f" ({text}) ")):
        assert other == pattern and hash(other) == hash(pattern)
        assert at.dense_mask(other, 15).equal(at.dense_mask(pattern, 15))


@pytest.mark.parametrize(
    "text",
    ["", "local", "local x", "nonsense 3", "local 3 &", "(causal", "causal)", "run 3"],
)
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(ValueError, match="pattern|local"):
        P.parse(text)


@pytest.mark.parametrize("text", [*TEXTS[:6], "blocks 4", "prefix 3", "local 2,5"])
@pytest.mark.parametrize(
    "queries", [range(1), range(3, 9), range(-4, 2), range(12, 20)]
)
def test_a_run_holds_all_keys_and_no_more_than_needed(text, queries):
    n, pattern = 15, P.parse(text)
    mask = at.dense_mask(pattern, len(queries), n, first=queries.start)
    met = mask.any(0).nonzero()[:, 0].tolist()
    found = P.run(pattern, queries, n)
    assert set(met) <= set(found)
    if met and "|" not in text:
        assert (found.start, found.stop) == (met[0], met[-1] + 1)


def test_own_predicates_are_equal_by_identity():
    def keep(i, j):
        return i != j

    a, b = P.Pattern("mine", keep=keep), P.Pattern("mine", keep=lambda i, j: i != j)
    assert a == P.Pattern("mine", keep=keep) and a != b
    with pytest.raises(ValueError, match="name must not be that of another pattern"):
        P.Pattern("local", (("window", 3),), keep=keep)


@pytest.mark.parametrize("size", [2**31, 2**62, 2**63, 10**20])
def test_no_integer_is_wrapped(size):
    full = at.dense_mask(P.full(), 5)
    for pattern in (P.local(size), P.blocks(size), P.prefix(size), P.dilated(size, 1)):
        assert at.dense_mask(pattern, 5).equal(full)
    assert at.dense_mask(P.strided(size), 5).equal(torch.eye(5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"seed must be below 2\*\*64"):
        P.random_blocks(2, 3, 1, seed=2**64 + size)


def test_patterns_do_not_follow_the_default_dtype():
    wanted = at.dense_mask(P.random_blocks(2, 50, 9), 100)
    torch.set_default_dtype(torch.float64)
    try:
        assert at.dense_mask(P.random_blocks(2, 50, 9), 100).equal(wanted)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert at.dense_mask(P.random_blocks(2, 50, 9), 100).equal(wanted)


MODELS = [
    (pattern, positions)
    for pattern in (None, "local 2 & causal", "adjacent_blocks 3", "prefix 1 | local 1")
    for positions in ("none", "sinusoidal", "learned", "rotary")
]


@pytest.mark.parametrize(("text", "positions"), MODELS)
def test_padding_moves_no_token(text, positions):
    from attn_tutorial.networks.transformer import Transformer

    torch.manual_seed(0)
    pattern = P.parse(text) if text else None
    model = Transformer(9, 5, 16, pattern=pattern, positions=positions).double()
    for block in model.blocks:  # zeros at first: nothing would be mixed
        torch.nn.init.normal_(block.mixer.output.weight)
    tokens = torch.randint(9, (1, 11))
    alone, maps = model(tokens), model.attention_maps(tokens)
    real = torch.ones(1, 16, dtype=torch.bool)
    real[0, [0, 1, 2, 7, 15]] = False
    padded = torch.zeros(1, 16, dtype=torch.long)
    padded[real] = tokens[0]
    torch.testing.assert_close(model(padded, key_keep=real)[real], alone[0])
    for one, other in zip(
        model.attention_maps(padded, key_keep=real), maps, strict=True
    ):
        torch.testing.assert_close(one[..., real[0], :][..., real[0]], other)
