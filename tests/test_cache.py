"""A cache gives what attention without one gives, and keeps no more than it must."""

import pytest
import torch
from cache_splits import MOST, adjacent, blocks, dilated, left, near, split

import attn_tutorial as at
from attn_tutorial import lookback
from attn_tutorial import patterns as P
from attn_tutorial.cache import RollingCache
from attn_tutorial.cost import cache_bytes
from attn_tutorial.instruments.memory import LiveMemory
from attn_tutorial.lookback import needs

SINKS = "(prefix 4 | local 16) & causal"


def tokens(n, batch=(2,), heads=4, kv_heads=2, d=8, dtype=torch.float64, seed=0):
    """Random q, k, v of n tokens."""
    source = torch.Generator("cpu").manual_seed(seed)
    shapes = [(*batch, h, n, d) for h in (heads, kv_heads, kv_heads)]
    return [torch.randn(*s, dtype=dtype, generator=source) for s in shapes]


def uncached(q, k, v, pattern):
    groups = q.shape[-3] // k.shape[-3]
    k, v = (x.repeat_interleave(groups, -3) for x in (k, v))
    return at.attention(q, k, v, at.dense_mask(pattern, q.shape[-2]))


def in_parts(cache, q, k, v, sizes):
    parts, start = [], 0
    for n in sizes:
        part = slice(start, start := start + n)
        parts.append(cache.attend(*(x[..., part, :] for x in (q, k, v))))
    return torch.cat(parts, -2)


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_any_split_equals_attention_without_a_cache(first):
    errors = {seed: split(seed)[1] for seed in range(first, first + 100)}
    assert max(errors.values()) <= MOST, max(errors, key=errors.get)


# Faults that caches of other code bases had


class TrimmedShort(RollingCache):
    """A window of W keys keeps W - 1."""

    def __init__(self, pattern):
        super().__init__(pattern)
        self.window = max(self.window - 1, 1)


class NeverTrimmedAtOne(RollingCache):
    """Keys are cut to the last W - 1 by keys[-(W - 1):], which for W = 1 is all."""

    def __init__(self, pattern):
        alone = RollingCache(pattern).window == 1
        super().__init__(P.causal() if alone else pattern)


class CausalityLost(RollingCache):
    """The queries of a chunk also meet the keys after them in the same chunk."""

    def _near(self, *arguments):
        right = self._behind
        ahead = P.Pattern("ahead", keep=lambda i, j: right.keep(i, j) | (j > i))
        self._behind = ahead
        output = super()._near(*arguments)
        self._behind = right
        return output


class EdgeOffByOneInSteps(RollingCache):
    """A step takes every stored key to stand one place further back."""

    def _held(self, lengths):
        return super()._held(lengths) - 1


class EdgeOffByOneInChunks(RollingCache):
    """A chunk begins one key after the first that it meets."""

    def _base(self, first, n):
        return min(super()._base(first, n) + 1, first)


class SinksEvicted(RollingCache):
    """The first keys leave with all others."""

    def __init__(self, pattern):
        super().__init__(pattern)
        self.sinks, self._behind = 0, pattern


class SinksTwice(RollingCache):
    """A sink that is still in the window counts twice in a step."""

    def _held(self, lengths):
        sinks, self.sinks = self.sinks, 0
        held = super()._held(lengths)
        self.sinks = sinks
        return held


class PaddingKept(RollingCache):
    """What is behind the real tokens of a row is remembered."""

    def _remember(self, k, v, counts):
        k, v = k.nan_to_num(), v.nan_to_num()
        super()._remember(k, v, torch.full_like(counts, k.shape[-2]))


class HeadsInterleaved(RollingCache):
    """Query heads are dealt out to heads of keys in turn, not in groups."""

    def attend(self, q, k, v, *more):
        groups = q.shape[-3] // k.shape[-3]
        q = q.unflatten(-3, (groups, -1)).transpose(-3, -4).flatten(-4, -3)
        return super().attend(q, k, v, *more)


FAULTS = [
    TrimmedShort,
    NeverTrimmedAtOne,
    CausalityLost,
    EdgeOffByOneInSteps,
    EdgeOffByOneInChunks,
    SinksEvicted,
    SinksTwice,
    PaddingKept,
    HeadsInterleaved,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_known_fault_of_caches_is_found_by_random_splits(fault):
    for seed in range(400):  # all of which pass without the fault
        try:
            error = split(seed, fault)[1]
        except AssertionError:  # the numbers of tokens differ
            return
        if error > 1e-6:
            return
    pytest.fail(f"{fault.__doc__} Nobody noticed.")


# What is kept


def keys_needed(keep, sinks, horizon=150):
    """Most keys behind the sinks that any later query keeps, at any time; plus one."""
    most = 0
    for now in range(horizon - 60):
        later = range(now, horizon)
        old = range(sinks, now)
        most = max(most, sum(any(keep(i, j) for i in later) for j in old))
    return most + 1


BOUNDED = [near(0), near(1), near(7), left(3), blocks(1), blocks(6), adjacent(4)]
BOUNDED += [dilated(3, 4)]


@pytest.mark.parametrize("case", BOUNDED, ids=lambda case: str(case.pattern))
def test_no_key_too_many_and_none_too_few_is_kept(case):
    alone = RollingCache(case.pattern)
    assert (alone.sinks, alone.window) == (0, keys_needed(case.keep, 0))
    for first in (P.prefix(5), P.global_tokens(5)):
        both = RollingCache((case.pattern | first) & P.causal())
        assert (both.sinks, both.window) == (5, alone.window)


@pytest.mark.parametrize(
    ("text", "sinks", "window"),
    [
        ("causal", 0, float("inf")),
        ("full & causal", 0, float("inf")),
        ("strided 3 & causal", 0, float("inf")),
        ("strided 3 & causal & local 6", 0, 7),
        ("(prefix 3 | local 4 | blocks 9) & causal", 3, 9),
        ("(prefix 3 | causal) & local 4,0", 0, 5),
        ("(prefix 9 | local 2) & local 4 & causal", 0, 5),
        ("(prefix 9 | local 2) & (prefix 3 | local 4) & causal", 3, 5),
        ("prefix 3 & causal", 3, 1),
        ("documents 3,8,2 & causal", 0, 8),
        ("shifted -2 (local 3) & causal", 0, 6),
        ("shifted 2 (local 3) & causal", 0, 2),
        ("shifted -4 (global_tokens 2) & causal", 2, 4),
        ("shifted 2 (blocks 4) & causal", 0, 2),
        ("prefix 0 & causal", 0, 1),
    ],
)
def test_what_combined_patterns_need(text, sinks, window):
    pattern = P.parse(text)
    cache = RollingCache(pattern)
    assert (cache.sinks, cache.window) == (sinks, window)
    limit = pattern.max_length or 13
    q, k, v = tokens(limit)
    output = in_parts(cache, q, k, v, [5] + [1] * (limit - 10) + [3, 2])
    torch.testing.assert_close(output, uncached(q, k, v, pattern), rtol=0, atol=MOST)


def test_windows_beyond_all_numbers_grow_with_the_text():
    for pattern in (P.local((2**70, 0)), P.prefix(2**70) & P.causal() & P.local(2**65)):
        q, k, v = tokens(50)
        cache = RollingCache(pattern)
        output = in_parts(cache, q, k, v, [20, 1, 1, 28])
        torch.testing.assert_close(output, uncached(q, k, v, pattern))
        assert cache.bytes < 10 * k.nbytes


def test_memory_is_constant_over_ten_thousand_tokens():
    cache = RollingCache(P.parse(SINKS))
    q, k, v = tokens(1, batch=(1,), dtype=torch.float32)
    stored, peaks = set(), set()
    for token in range(1, 10_001):
        if token % 1000:
            cache.attend(q, k, v)
            continue
        with LiveMemory() as memory:
            cache.attend(q, k, v)
        stored.add(cache.bytes)
        peaks.add(memory.peak)
    assert stored == {(4 + 17) * 2 * 2 * 8 * 4}  # keys, K and V, heads, d, bytes
    assert len(peaks) == 1 and max(peaks) < 10_000
    assert len(cache) == 10_000


@pytest.mark.parametrize("text", ["local 16,0", SINKS, "blocks 7 & causal", "causal"])
def test_slots_hold_the_sinks_and_the_last_tokens(text):
    cache = RollingCache(P.parse(text))
    assert cache.positions.shape == (0, 0)
    lengths = torch.zeros(2, dtype=torch.long)
    for new in ([3, 1], [1, 1], [30, 0], [1, 1], [5, 40], [1, 1]):
        cache.attend(*tokens(max(new)), new)
        lengths += torch.tensor(new)
        assert cache.positions.shape == (2, cache.bytes // (2 * 2 * 2 * 8 * 8))
        for row, length in zip(cache.positions.tolist(), lengths.tolist(), strict=True):
            first = set(range(min(cache.sinks, length)))
            last = range(max(0, length - min(cache.window, length)), length)
            held = [place for place in row if place >= 0]
            assert set(held) == first | set(last) and len(held) == len(set(held))
            assert min(row) >= -1


@pytest.mark.equation(22)
@pytest.mark.parametrize("text", ["local 16,0", SINKS, "blocks 7 & causal", "causal"])
def test_the_formula_of_the_bytes_is_what_is_held(text):
    pattern, cache = P.parse(text), RollingCache(P.parse(text))
    for n in range(1, 60):
        cache.attend(*tokens(1, batch=(), dtype=torch.float16))
        wanted = cache_bytes(pattern, n, d=8, kv_heads=2)
        few = (16 + cache.sinks) * 2 * 2 * 8 * 2  # slots that it begins with
        most = 2 * wanted + few
        assert wanted <= cache.bytes <= most
        if n > cache.sinks + cache.window:
            assert cache.bytes == wanted
    assert cache_bytes(pattern, 0, d=8) == 0
    sizes = {"kv_heads": 3, "layers": 5, "bytes_per_number": 4}
    assert cache_bytes(pattern, 9, 8, **sizes) == 30 * cache_bytes(pattern, 9, 8)


def test_the_formula_of_the_bytes_refuses_what_the_cache_refuses():
    with pytest.raises(ValueError, match="pattern must not look ahead"):
        cache_bytes(P.local(3), 9, 8)
    for name in ("n", "d", "kv_heads", "layers", "bytes_per_number"):
        sizes = {"n": 9, "d": 8, name: -1}
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            cache_bytes(P.causal(), **sizes)


def test_a_prompt_leaves_only_its_window():
    cache = RollingCache(P.local((16, 0)))
    cache.attend(*tokens(5000, dtype=torch.float32))
    assert cache.bytes == 17 * 2 * 2 * 2 * 8 * 4
    full = RollingCache(P.causal())
    full.attend(*tokens(5000, dtype=torch.float32))
    assert 5000 <= full.bytes / (2 * 2 * 2 * 8 * 4) < 10_000


def test_a_long_prompt_under_a_window_forms_no_square():
    q, k, v = tokens(4096, batch=(1,), heads=2, kv_heads=1, dtype=torch.float32)
    for text in ("local 16,0", SINKS, "blocks 32 & causal", "causal"):
        with LiveMemory() as memory:
            RollingCache(P.parse(text)).attend(q, k, v)
        assert memory.peak < 4096**2, text


# Batches


def test_a_batch_of_prompts_of_different_lengths_decodes_together():
    q, k, v = tokens(40, batch=(3,))
    cache, prompts = RollingCache(P.parse(SINKS)), [5, 33, 0]
    some = [x[..., :33, :].clone() for x in (q, k, v)]
    for row, n in enumerate(prompts):
        for x in some:
            x[row, :, n:] = torch.nan
    output = cache.attend(*some, prompts)
    wanted = uncached(q, k, v, cache.pattern)
    for row, n in enumerate(prompts):
        torch.testing.assert_close(output[row, :, :n], wanted[row, :, :n])
        assert not output[row, :, n:].any()
    for step in range(7):
        at_places = torch.tensor(prompts) + step
        new = (x[torch.arange(3), :, at_places][:, :, None] for x in (q, k, v))
        output = cache.attend(*new)
        torch.testing.assert_close(
            output[:, :, 0], wanted[torch.arange(3), :, at_places], rtol=0, atol=MOST
        )
    assert cache.lengths.tolist() == [12, 40, 7] and len(cache) == 40


def test_rows_that_rest_get_zeros_and_keep_their_past():
    q, k, v = tokens(6, batch=(2,))
    cache = RollingCache(P.local((3, 0)))
    cache.attend(*(x[..., :4, :] for x in (q, k, v)))
    nan = [x[..., 4:5, :].clone() for x in (q, k, v)]
    for x in nan:
        x[1] = torch.nan
    assert not cache.attend(*nan, torch.tensor([1, 0]))[1].any()
    output = cache.attend(*(x[..., 4:5, :] for x in (q, k, v)), [0, 1])
    wanted = uncached(q, k, v, cache.pattern)[1, :, 4]
    torch.testing.assert_close(output[1, :, 0], wanted, rtol=0, atol=MOST)


def test_several_batch_axes_and_none():
    for batch, lengths in (((), None), ((2, 3), None), ((2, 3), [9, 9])):
        q, k, v = tokens(12, batch=batch)
        cache = RollingCache(P.parse(SINKS))
        first = cache.attend(*(x[..., :9, :] for x in (q, k, v)), lengths)
        last = in_parts(cache, *(x[..., 9:, :] for x in (q, k, v)), [1, 2])
        output = torch.cat([first, last], -2)
        torch.testing.assert_close(output, uncached(q, k, v, cache.pattern))
        assert cache.lengths.shape == batch


def test_heads_shared_as_the_equations_share_them():
    q, k, v = tokens(20, batch=(2, 3), heads=4, kv_heads=1)  # (batch, groups, 1, n, d)
    output = in_parts(RollingCache(P.local((5, 0))), q, k, v, [7, 1, 12])
    torch.testing.assert_close(output, at.local_attention(q, k, v, (5, 0)))


def test_beams_go_on_from_the_rows_that_are_named():
    q, k, v = tokens(30, batch=(3,))
    cache = RollingCache(P.parse(SINKS))
    cache.attend(*(x[..., :25, :] for x in (q, k, v)), [25, 20, 25])
    cache.reorder(torch.tensor([2, 2, 0, 1]))
    assert cache.lengths.tolist() == [25, 25, 25, 20]
    rows, places = torch.tensor([2, 2, 0, 1]), torch.tensor([25, 25, 25, 20])
    new = (x[rows, :, places][:, :, None] for x in (q, k, v))
    wanted = uncached(q, k, v, cache.pattern)[rows, :, places]
    torch.testing.assert_close(cache.attend(*new)[:, :, 0], wanted, rtol=0, atol=MOST)


def test_beams_part_after_they_were_one_row():
    one, other = tokens(1, batch=(2,), seed=1), tokens(1, batch=(2,), seed=1)
    cache = RollingCache(P.local((4, 0)))
    prompt = tokens(6, batch=(1,))
    cache.attend(*prompt)
    cache.reorder([0, 0])
    output = cache.attend(*one)
    for row in range(2):
        alone = RollingCache(cache.pattern)
        alone.attend(*prompt)
        own = [x[row : row + 1] for x in other]
        torch.testing.assert_close(output[row : row + 1], alone.attend(*own))
    assert (output[0] != output[1]).any()


# Modes and types


@pytest.mark.parametrize("text", ["local 6,0", SINKS, "causal"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_keep_their_digits(text, dtype):
    q, k, v = tokens(40, dtype=dtype)
    output = in_parts(RollingCache(P.parse(text)), q, k, v, [30, 1, 1, 8])
    wanted = uncached(*(x.double() for x in (q, k, v)), P.parse(text))
    assert output.dtype == dtype
    atol = 4 * torch.finfo(dtype).eps + 1e-6
    torch.testing.assert_close(output.double(), wanted, rtol=0, atol=atol)


def test_autocast_changes_nothing():
    q, k, v = tokens(20, dtype=torch.float32)
    plain = in_parts(RollingCache(P.parse(SINKS)), q, k, v, [12, 1, 7])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = in_parts(RollingCache(P.parse(SINKS)), q, k, v, [12, 1, 7])
    assert torch.equal(cast, plain)


def test_inference_mode_and_its_end():
    q, k, v = tokens(20)
    cache = RollingCache(P.parse(SINKS))
    with torch.inference_mode():
        first = in_parts(cache, *(x[..., :12, :] for x in (q, k, v)), [11, 1])
    last = in_parts(cache, *(x[..., 12:, :] for x in (q, k, v)), [1, 7])
    output = torch.cat([first, last], -2)
    torch.testing.assert_close(output, uncached(q, k, v, cache.pattern))


def test_gradients_are_refused_unless_nobody_wants_them():
    q, k, v = tokens(3)
    cache = RollingCache(P.causal())
    for place, name in enumerate("qkv"):
        inputs = [q, k, v]
        inputs[place] = inputs[place].clone().requires_grad_()
        with pytest.raises(ValueError, match=rf"{name} must not .*torch\.no_grad\(\)"):
            cache.attend(*inputs)
        with torch.no_grad():
            assert not cache.attend(*inputs).requires_grad
    assert len(cache) == 9


def test_a_scale_of_ones_own():
    q, k, v = tokens(9)
    for scale in (0, 0.7):
        cache = RollingCache(P.causal() & P.local(3))
        parts = [slice(0, 6), slice(6, 7), slice(7, 9)]
        output = [
            cache.attend(*(x[..., part, :] for x in (q, k, v)), scale=scale)
            for part in parts
        ]
        k2, v2 = (x.repeat_interleave(2, 1) for x in (k, v))
        keep = at.dense_mask(cache.pattern, 9)
        wanted = at.attention(q, k2, v2, keep, scale=scale)
        torch.testing.assert_close(torch.cat(output, -2), wanted)


def test_what_comes_in_is_not_kept_by_reference():
    q, k, v = tokens(9)
    cache = RollingCache(P.causal())
    cache.attend(*(x[..., :8, :] for x in (q, k, v)))
    wanted = uncached(q, k, v, cache.pattern)[..., 8:, :]
    last = [x[..., 8:, :].clone() for x in (q, k, v)]
    k.zero_()
    v.zero_()
    torch.testing.assert_close(cache.attend(*last), wanted)


# What it says of itself, and refuses


def test_what_it_says_of_itself():
    cache = RollingCache(P.parse(SINKS))
    assert at.RollingCache is RollingCache
    assert cache and len(cache) == 0 and cache.bytes == 0
    cache.attend(*tokens(6))
    text = "RollingCache('(prefix 4 | local 16) & causal', sinks=4, window=17, length=6"
    assert repr(cache) == f"{text})"
    cache.lengths.zero_()  # a copy
    assert cache.lengths.tolist() == [6, 6]
    cache.reset()
    assert len(cache) == 0 and cache.bytes == 0
    q, k, v = tokens(3, batch=(5,), d=2)  # of another shape
    torch.testing.assert_close(cache.attend(q, k, v), uncached(q, k, v, cache.pattern))


def test_no_tokens_are_no_call():
    cache = RollingCache(P.parse(SINKS))
    assert cache.attend(*tokens(0)).shape == (2, 4, 0, 8)
    empty = RollingCache(cache.pattern).attend(*tokens(3, batch=(0,)))
    assert empty.shape == (0, 4, 3, 8)


@pytest.mark.parametrize(
    "text",
    [
        "full",
        "local 3",
        "local 3,1",
        "blocks 2",
        "adjacent_blocks 1",
        "global_tokens 1",
        "prefix 2",
        "prefix 2 | causal",
        "strided 2",
        "documents 2,2",
        "random_blocks 2 2 1",
        "dilated 1 2",
        "shifted 1 (causal)",
        "causal | local 0,1",
    ],
)
def test_patterns_that_look_ahead_are_refused_and_the_repair_works(text):
    pattern = P.parse(text)
    with pytest.raises(ValueError, match="pattern must not look ahead, got") as error:
        RollingCache(pattern)
    assert repr(pattern) in str(error.value)
    assert str(error.value).endswith("write pattern & patterns.causal()")
    assert needs(pattern).ahead > 0 == needs(pattern & P.causal()).ahead


def test_a_readers_own_predicate_is_refused_unless_it_is_made_causal():
    own = P.Pattern("own", keep=lambda i, j: j <= i)
    with pytest.raises(ValueError, match=r"look ahead, got own\(\): write"):
        RollingCache(own)
    assert RollingCache(own & P.causal()).window == float("inf")
    assert RollingCache(own & P.local((6, 0))).window == 7


def test_a_pattern_is_a_pattern():
    with pytest.raises(TypeError, match="pattern must be .*got 'causal'"):
        RollingCache("causal")


def wrong_inputs():
    q, k, v = tokens(3)
    yield "k must have the length of q, 3", (q, k[..., :2, :], v[..., :2, :])
    yield "v must have the length of k, 3", (q, k, v[..., :2, :])
    yield (
        "k must have a number of heads that divides those of q, 4",
        tokens(3, kv_heads=3),
    )
    yield "k must have the batch dimensions of q", (q, k[:1], v[:1])
    yield "v must have the leading dimensions of k", (q, k, v[:, :1])
    yield "k must have the width of q, 8", (q, k[..., :4], v)
    yield r"q must have shape \(\.\.\., heads, n, d\)", (q[0, 0], k[0, 0], v[0, 0])
    yield r"lengths must have shape \(2,\), got \(3,\)", (q, k, v, [1, 2, 3])
    yield r"lengths must have shape \(2,\), got \(\)", (q, k, v, 2)
    yield r"lengths must lie between 0 and 3, got \[1, 4\]", (q, k, v, [1, 4])
    yield r"lengths must lie between 0 and 3, got \[-1, 3\]", (q, k, v, [-1, 3])
    yield r"k must be \(2, 2, n, 8\), torch.float64 .*reset\(\)", tokens(3, d=9)
    yield r"k must be .*got \(3, 2, 3, 8\)", tokens(3, batch=(3,))
    yield r"k must be .*got .*float32", tokens(3, dtype=torch.float32)
    yield r"v must be .*got \(2, 2, 3, 4\)", (q, k, v[..., :4])
    yield r"n_k must be at most 11 .*got 12", tokens(4)


@pytest.mark.parametrize(("message", "inputs"), [*wrong_inputs()])
def test_wrong_inputs_are_refused_and_nothing_is_remembered(message, inputs):
    cache = RollingCache(P.random_blocks(1, 11, 3) & P.causal())
    cache.attend(*tokens(8))
    before = cache._k.clone(), cache._v.clone(), cache.lengths
    with pytest.raises(ValueError, match=message):
        cache.attend(*inputs)
    for old, now in zip(before, (cache._k, cache._v, cache.lengths), strict=True):
        assert torch.equal(old, now)


def test_wrong_types_are_refused():
    q, k, v = tokens(3)
    cache = RollingCache(P.causal())
    with pytest.raises(TypeError, match="lengths must be integers, got torch.float32"):
        cache.attend(q, k, v, torch.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="k must have the dtype of q"):
        cache.attend(q, k.float(), v)
    with pytest.raises(TypeError, match="q must be a torch.Tensor, got list"):
        cache.attend([1], k, v)


@pytest.mark.parametrize("index", [[2], [-1], [0.5], [True], [[0]], 0])
def test_reorder_names_rows_that_exist(index):
    cache = RollingCache(P.causal())
    cache.attend(*tokens(3))
    with pytest.raises(ValueError, match="index must"):
        cache.reorder(index)


def test_without_a_batch_nothing_is_reordered():
    cache = RollingCache(P.causal())
    with pytest.raises(ValueError, match="index must name rows of a batch of 0"):
        cache.reorder([0])
    cache.attend(*tokens(3, batch=()))
    with pytest.raises(ValueError, match="index must name rows of a batch of 0"):
        cache.reorder([0])


def test_moved_patterns_are_the_old_ones_further_on():
    texts = ["blocks 4", "documents 3,0,7,5", "prefix 9 | local 2", "strided 3"]
    texts += ["shifted -2 (blocks 4)", "random_blocks 4 6 2", "global_tokens 7"]
    texts += ["shifted -4 (global_tokens 2)", "shifted -3 (documents 4,5)"]
    texts += ["shifted 3 (prefix 5)", "shifted -6 (local 2)"]
    for text in texts:
        pattern = P.parse(text)
        whole = at.dense_mask(pattern, 15)
        for base in range(10):
            part = at.dense_mask(lookback.moved(pattern, base), 15 - base)
            assert torch.equal(part, whole[base:, base:]), (text, base)
