"""Multi-head attention and the small models against PyTorch's own layers."""

from functools import partial

import pytest
import torch
from torch import nn

import attn_tutorial as at
from attn_tutorial import patterns
from attn_tutorial.benchmark.spelling import recorded_pattern
from attn_tutorial.instruments.memory import LiveMemory
from attn_tutorial.networks import dispatch
from attn_tutorial.networks.dispatch import pattern_attention
from attn_tutorial.networks.layers import (
    Block,
    MultiHeadAttention,
    RecurrentLayer,
    Rotary,
    sinusoidal_positions,
)
from attn_tutorial.networks.transformer import POSITIONS, Transformer, layer_patterns
from attn_tutorial.networks.translator import EncoderDecoder, Translator

FAST = {
    "local": patterns.local(2),
    "causal local": patterns.causal() & patterns.local(3),
    "local causal": patterns.local(3) & patterns.causal(),
    "blocks": patterns.adjacent_blocks(3),
    "causal blocks": patterns.adjacent_blocks(2) & patterns.causal(),
}
MASKED = {
    "full": patterns.full(),
    "causal": patterns.causal(),
    "global": patterns.local(1) | patterns.global_tokens(2),
    "both": patterns.local(2) & patterns.adjacent_blocks(2),
    "nested": patterns.causal() & (patterns.local(1) | patterns.strided(3)),
}


def heads(n_q=7, n_k=7, seed=0):
    """Float64 queries, keys and values, shape (2, 3, n, 4)."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (n_q, n_k, n_k)
    shapes = [(2, 3, n, 4) for n in sizes]
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def copied(layer):
    """PyTorch's own layer with the weights of ``layer``."""
    width = layer.query.weight.shape[0]
    other = nn.MultiheadAttention(width, layer.num_heads, batch_first=True).double()
    parts = (layer.query, layer.key, layer.value)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        other.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        other.out_proj.weight.copy_(layer.output.weight)
        other.out_proj.bias.copy_(layer.output.bias)
    return other


@pytest.mark.equation(2)
@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_multi_head_attention_equals_pytorch(num_heads):
    torch.manual_seed(0)
    layer = MultiHeadAttention(8, num_heads).double()
    x, y = torch.randn(3, 5, 8).double(), torch.randn(3, 6, 8).double()
    key_keep = torch.ones(3, 6, dtype=torch.bool)
    key_keep[1, 4:] = False
    ours, weights = layer(x, y, key_keep=key_keep, need_weights=True)
    theirs, their_weights = copied(layer)(
        x, y, y, key_padding_mask=~key_keep, average_attn_weights=False
    )
    assert torch.allclose(ours, theirs)
    assert torch.allclose(weights, their_weights)
    assert torch.equal(ours, layer(x, y, key_keep=key_keep))


@pytest.mark.equation(2)
def test_multi_head_attention_is_the_sum_over_heads_written_out():
    torch.manual_seed(1)
    layer = MultiHeadAttention(6, 3).double()
    x = torch.randn(5, 6).double()
    total = layer.output.bias.expand(5, 6)
    for head in range(3):
        part = slice(2 * head, 2 * head + 2)
        q, k, v = (
            x @ p.weight[part].T + p.bias[part]
            for p in (layer.query, layer.key, layer.value)
        )
        scores = torch.exp(q @ k.T / 2**0.5)
        found = scores / scores.sum(-1, keepdim=True) @ v
        total = total + found @ layer.output.weight[:, part].T
    assert torch.allclose(layer(x), total)


def test_multi_head_attention_has_as_many_parameters_as_one_head():
    count = {
        h: sum(p.numel() for p in MultiHeadAttention(8, h).parameters())
        for h in (1, 2, 8)
    }
    assert count == dict.fromkeys((1, 2, 8), 4 * 8 * 8 + 4 * 8)


@pytest.mark.parametrize("pattern", (FAST | MASKED).values(), ids=FAST | MASKED)
@pytest.mark.parametrize("padded", [False, True])
def test_a_pattern_means_its_mask(pattern, padded):
    q, k, v = heads()
    key_keep = torch.ones(2, 7, dtype=torch.bool)
    key_keep[0, 5:] = False
    mask = at.dense_mask(pattern, 7)
    if padded:
        mask = mask & key_keep[:, None, None, :]
    ours = pattern_attention(q, k, v, pattern, key_keep if padded else None)
    assert torch.allclose(ours, at.attention(q, k, v, mask))


def test_the_fast_routines_are_used_where_they_exist(monkeypatch):
    def refuse(*_):
        raise AssertionError("a mask was formed")

    monkeypatch.setattr(dispatch, "dense_mask", refuse)
    for pattern in FAST.values():
        pattern_attention(*heads(), pattern)


def test_a_pattern_between_two_sequences_is_a_mask():
    q, k, v = heads(n_q=4, n_k=7)
    mask = at.dense_mask(patterns.local(2), 4, 7)
    ours = pattern_attention(q, k, v, patterns.local(2), first=0)
    assert torch.allclose(ours, at.attention(q, k, v, mask))


def test_weights_follow_the_pattern():
    layer = MultiHeadAttention(8, 2, patterns.local(1))
    _, weights = layer(torch.randn(3, 5, 8), need_weights=True)
    mask = at.dense_mask(patterns.local(1), 5)
    assert weights.shape == (3, 2, 5, 5)
    assert torch.equal(weights > 0, mask.expand_as(weights))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((8, 3), ValueError, "num_heads must divide d_model=8, got 3"),
        ((8, 0), ValueError, "num_heads must be at least 1, got 0"),
        ((8.5, 2), TypeError, "d_model must be an integer, got 8.5"),
        ((8, 2, "local"), TypeError, "pattern must be a pattern or None, got 'local'"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, text):
    with pytest.raises(error, match=text):
        MultiHeadAttention(*arguments)


def test_a_new_block_is_the_identity():
    x = torch.randn(2, 5, 8)
    for mixer in (
        MultiHeadAttention(8, 2),
        RecurrentLayer(8),
    ):
        assert torch.equal(Block(8, mixer)(x), x)


def hears(layer, n=9, position=4):
    """Positions whose input changes the output at ``position``."""
    torch.manual_seed(0)
    x = torch.randn(1, n, 8, requires_grad=True)
    layer(x)[0, position].sum().backward()
    return x.grad[0].norm(dim=-1).nonzero().flatten().tolist()


def test_each_mixer_hears_what_it_should():
    assert hears(RecurrentLayer(8)) == [0, 1, 2, 3, 4]
    assert hears(MultiHeadAttention(8, 2)) == list(range(9))
    assert hears(MultiHeadAttention(8, 2, patterns.local(1))) == [3, 4, 5]


def test_positions_turn_by_the_same_angle_at_every_shift():
    table = sinusoidal_positions(20, 8).double()
    products = table @ table.T
    for shift in range(20):
        diagonal = products.diagonal(shift)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5)
    with pytest.raises(ValueError, match="d_model must be even, got 7"):
        sinusoidal_positions(3, 7)


def test_the_transformer_without_positions_is_equivariant():
    torch.manual_seed(0)
    tokens, order = torch.randint(6, (2, 7)), torch.randperm(7)
    for positions, equal in ((False, True), (True, False)):
        model = Transformer(6, 3, 8, 2, 2, positions=positions)
        for block in model.blocks:
            nn.init.normal_(block.mixer.output.weight)
        shuffled = model(tokens[:, order])
        assert torch.allclose(shuffled, model(tokens)[:, order], atol=1e-5) == equal


def test_attention_maps_are_those_of_the_forward_pass():
    torch.manual_seed(0)
    model = Transformer(6, 3, 8, 2, 2, pattern=patterns.local(1))
    tokens = torch.randint(6, (4, 5))
    maps = model.attention_maps(tokens)
    assert [m.shape for m in maps] == [(4, 2, 5, 5)] * 2
    x = model.blocks[0].norm_1(model.embed(tokens))
    assert torch.equal(maps[0], model.blocks[0].mixer(x, need_weights=True)[1])


def test_another_mixer_can_take_the_place_of_attention():
    model = Transformer(6, 3, 8, num_layers=2, mixer=lambda: RecurrentLayer(8))
    assert all(isinstance(block.mixer, RecurrentLayer) for block in model.blocks)
    assert model(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 3)


def moved(model):
    """``model`` with weights that are not zero anywhere."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return model


def test_the_translator_neither_looks_ahead_nor_at_padding():
    model = moved(Translator(9, 7, 8))
    source, target = torch.tensor([[3, 4, 5, 0]]), torch.tensor([[1, 2, 3, 4]])
    scores = model(source, target)
    assert scores.shape == (1, 4, 7)
    longer = torch.cat([source, source.new_zeros(1, 2)], 1)
    assert torch.allclose(model(longer, target), scores, atol=1e-5)
    changed = model(source, torch.tensor([[1, 2, 3, 5]]))
    assert torch.allclose(changed[:, :3], scores[:, :3], atol=1e-5)
    assert not torch.allclose(changed[:, 3], scores[:, 3], atol=1e-2)
    alignment = model.alignment(longer, target)
    assert alignment.shape == (1, 1, 4, 6)
    assert torch.equal(alignment[..., 3:], torch.zeros(1, 1, 4, 3))


def test_translating_takes_the_best_word_each_time():
    model = moved(Translator(9, 7, 8))
    source = torch.tensor([[3, 4, 5], [4, 4, 0]])
    written = model.translate(source, start=1, length=4)
    assert written.shape == (2, 4)
    fed = torch.cat([torch.ones(2, 1, dtype=torch.long), written[:, :-1]], 1)
    assert torch.equal(model(source, fed).argmax(-1), written)


# Grouped heads, rotary and learned positions, patterns by layer.

EVERY = [
    recorded_pattern(name, causal=causal)
    for name in ("full", "local 2", "blocks 3", "local 1 + global 2")
    for causal in (False, True)
]


class Written(nn.Module):
    """A ``MultiHeadAttention`` with its pattern as a mask, and heads one by one."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, key_keep):
        layer, width = self.layer, x.shape[-1] // self.layer.num_heads
        mask = at.dense_mask(layer.pattern, x.shape[-2]) & key_keep[:, None, :]
        q, k, v = (part(x).split(width, -1) for part in self.parts())
        heads = [at.attention(*each, mask) for each in zip(q, k, v, strict=True)]
        return layer.output(torch.cat(heads, -1))

    def parts(self):
        """Queries, keys and values of all heads, the shared ones repeated."""
        layer = self.layer
        width, group = layer.width, layer.num_heads // layer.num_kv_heads

        def repeated(part, x):
            heads = part(x).unflatten(-1, (-1, width))
            return heads.repeat_interleave(group, -2).flatten(-2)

        shared = (partial(repeated, part) for part in (layer.key, layer.value))
        return layer.query, *shared


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("pattern", EVERY, ids=repr)
def test_every_fast_path_equals_the_dense_mask(pattern, num_kv_heads, rotary):
    torch.manual_seed(0)
    options = {"num_kv_heads": num_kv_heads, "rotary": rotary}
    layer = MultiHeadAttention(16, 4, pattern, **options).double()
    x = torch.randn(3, 11, 16, dtype=torch.float64)
    key_keep = torch.ones(3, 11, dtype=torch.bool)
    key_keep[1, 7:] = False
    key_keep[2, :4] = False  # the first causal queries have no key at all
    for keep in (key_keep, torch.ones_like(key_keep)):
        ours = layer(x, key_keep=keep)
        assert torch.allclose(ours, Written(layer)(x, keep))
    assert torch.allclose(layer(x), Written(layer)(x, torch.ones_like(key_keep)))


@pytest.mark.parametrize("pattern", EVERY, ids=repr)
def test_gradients_are_those_of_the_dense_mask(pattern):
    torch.manual_seed(0)
    layer = MultiHeadAttention(8, 2, pattern, num_kv_heads=1, rotary=True).double()
    key_keep = torch.ones(2, 9, dtype=torch.bool)
    key_keep[0, :3] = False
    x = torch.randn(2, 9, 8, dtype=torch.float64, requires_grad=True)
    inputs = (x, *layer.parameters())
    found = [
        torch.autograd.grad((run(x, key_keep=key_keep) ** 2).sum(), inputs)
        for run in (layer, Written(layer))
    ]
    for ours, theirs in zip(*found, strict=True):
        assert ours.isfinite().all()
        assert torch.allclose(ours, theirs)


def test_grouped_heads_share_their_keys_and_values():
    """With the shared projections written out four times, it is plain attention."""
    torch.manual_seed(0)
    grouped = MultiHeadAttention(16, 4, num_kv_heads=2)
    plain = MultiHeadAttention(16, 4)
    for name in ("query", "output"):
        getattr(plain, name).load_state_dict(getattr(grouped, name).state_dict())
    for name in ("key", "value"):
        narrow, wide = getattr(grouped, name)[0], getattr(plain, name)
        rows = [0, 1, 2, 3] * 2 + [4, 5, 6, 7] * 2
        wide.load_state_dict({k: x[rows] for k, x in narrow.state_dict().items()})
    x = torch.randn(2, 7, 16)
    assert torch.allclose(grouped(x), plain(x), atol=1e-6)
    assert grouped.key[0].weight.shape == (8, 16)


def test_weights_have_their_names_whether_heads_are_shared_or_not():
    names = MultiHeadAttention(16, 4, num_kv_heads=2, rotary=True).state_dict()
    parts = ("query.0", "key.0", "value.0", "output")
    assert list(names) == [f"{p}.{x}" for p in parts for x in ("weight", "bias")]
    names = MultiHeadAttention(16, 4).state_dict()
    parts = ("query", "key", "value", "output")
    assert list(names) == [f"{p}.{x}" for p in parts for x in ("weight", "bias")]


GROUPS = {
    "one head of keys": ((2, 6), (2, 1), (2,)),
    "groups": ((2, 3, 4), (2, 3, 1), (2, 1)),
    "one group without a batch": ((6,), (1,), ()),
    "keys for several texts": ((1, 6), (2, 1), (2,)),
    "groups of the keys only": ((2, 1, 4), (2, 3, 1), (2, 1)),
}
SHARING = {"none": None, **FAST, **MASKED, "narrow": patterns.blocks(2)}


@pytest.mark.parametrize("leading", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("pattern", SHARING.values(), ids=SHARING)
def test_heads_in_groups_share_keys_and_masks(pattern, leading):
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "requires_grad": True}
    of_q, of_k, of_mask = leading
    q, k, v = (torch.randn(*axes, 9, 4, **options) for axes in (of_q, of_k, of_k))
    for key_keep in (None, torch.rand(*of_mask, 9) < 0.7):
        mask = at.dense_mask(pattern or patterns.full(), 9)
        if key_keep is not None:
            by_head = key_keep[..., None, :] if of_mask else key_keep
            mask = mask & by_head[..., None, :]
        found = [
            pattern_attention(q, k, v, pattern, key_keep),
            at.attention(q, k, v, mask),
        ]
        assert torch.allclose(*found)
        grads = [torch.autograd.grad(x.square().sum(), (q, k, v)) for x in found]
        for ours, theirs in zip(*grads, strict=True):
            assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("text", ["local 4", "adjacent_blocks 8", "blocks 8", "causal"])
@torch.no_grad()
def test_shared_keys_are_not_copied(text):
    """Copies for each of 16 heads would add twice the memory of the queries."""
    pattern = patterns.parse(text)
    q, k = torch.randn(2, 1, 16, 64, 16), torch.randn(2, 1, 1, 64, 16)
    with LiveMemory() as memory:
        pattern_attention(q, k, k, pattern)
    assert memory.peak < 2.5 * q.nbytes  # the output, once more where it is masked
    x, peaks = torch.randn(2, 64, 256), []
    for num_kv_heads in (1, 16):
        layer = MultiHeadAttention(256, 16, pattern, num_kv_heads=num_kv_heads)
        with LiveMemory() as memory:
            layer(x)
        peaks.append(memory.peak)
    assert peaks[0] < peaks[1] - 1.5 * x.nbytes


def test_rotary_products_depend_on_the_distance_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 8, dtype=torch.float64)
    turn = Rotary(4)
    turned_q, turned_k = (turn(x.expand(20, 8)) for x in (q, k))
    products = turned_q @ turned_k.T
    for lag in range(-19, 20):
        diagonal = products.diagonal(lag)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal))
    assert torch.allclose(turned_q.norm(dim=-1), q.norm().expand(20))
    assert torch.equal(turned_q[0], q)


def test_layers_take_turns_with_their_patterns():
    near, far = patterns.local(2), patterns.full()
    assert layer_patterns([near, near, near, far], 8) == [near, near, near, far] * 2
    assert layer_patterns(near, 3) == [near] * 3
    assert layer_patterns(None, 2) == [None, None]
    assert layer_patterns([near, None], 3) == [near, None, near]
    model = Transformer(5, 5, 8, 2, 4, pattern=[near, near, near, far])
    assert [b.mixer.pattern for b in model.blocks] == [near, near, near, far]
    with pytest.raises(ValueError, match="pattern needs at least one pattern"):
        Transformer(5, 5, pattern=[])


@pytest.mark.parametrize("positions", POSITIONS)
def test_all_but_no_positions_tell_orders_apart(positions):
    torch.manual_seed(0)
    model = moved(Transformer(6, 3, 8, 2, 2, positions=positions))
    tokens, order = torch.tensor([[0, 1, 2, 3, 4]]), [0, 2, 1, 3, 4]
    same = torch.allclose(model(tokens[:, order]), model(tokens)[:, order], atol=1e-5)
    assert same == (positions == "none")


def test_shared_layers_are_one_layer():
    model = moved(Transformer(6, 3, 8, 2, num_layers=3, share_layers=True))
    assert len(model.blocks) == 3
    one = sum(p.numel() for p in Block(8, MultiHeadAttention(8, 2)).parameters())
    inside = sum(p.numel() for p in model.blocks.parameters())
    assert inside == one
    tokens = torch.randint(6, (2, 5))
    x = model.embed(tokens)
    for _ in range(3):
        x = model.blocks[0](x)
    assert torch.equal(model(tokens), model.head(model.norm(x)))
    with pytest.raises(ValueError, match="shared layers need one pattern"):
        Transformer(6, 3, share_layers=True, pattern=[None, patterns.causal()])


def test_dropout_is_for_training_only():
    model = moved(Transformer(6, 3, 8, 2, 2, dropout=0.5))
    tokens = torch.randint(6, (2, 5))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_the_defaults_draw_the_same_weights_as_ever():
    """Chapters print numbers of trained models: nothing may move the first draws."""
    torch.manual_seed(0)
    model = Transformer(6, 3, 8, 2, 1)
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8) for _ in range(4)]
    embedding = nn.Embedding(6, 8)
    assert torch.equal(model.blocks[0].mixer.query.weight, layers[0].weight)
    assert torch.equal(model.blocks[0].mixer.value.bias, layers[2].bias)
    assert torch.equal(model.embedding.weight, embedding.weight)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: MultiHeadAttention(8, 4, num_kv_heads=3), "must divide num_heads=4"),
        (lambda: MultiHeadAttention(6, 2, rotary=True), "rotary head must be even"),
        (lambda: Transformer(3, 3, positions="absolute"), "positions must be one of"),
    ],
)
def test_wrong_options_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize("pattern", [None, *EVERY[::2]], ids=repr)
def test_the_encoder_decoder_neither_looks_ahead_nor_at_padding(pattern):
    model = moved(EncoderDecoder(9, 7, 8, 2, 2, pattern=pattern))
    source, target = torch.tensor([[3, 4, 5, 0]]), torch.tensor([[1, 2, 3, 4]])
    scores = model(source, target)
    longer = torch.cat([source, source.new_zeros(1, 3)], 1)
    assert torch.allclose(model(longer, target), scores, atol=1e-5)
    changed = model(source, torch.tensor([[1, 2, 3, 5]]))
    assert torch.allclose(changed[:, :3], scores[:, :3], atol=1e-5)
    assert not torch.allclose(changed[:, 3], scores[:, 3], atol=1e-2)


def test_a_window_limits_each_attention_of_the_encoder_decoder():
    """One layer with windows: target 0 hears source 0 to 1 + 1 + 1, and no more."""
    model = moved(EncoderDecoder(9, 7, 8, 2, 1, pattern=LOCAL, cross=LOCAL))
    source, target = torch.randint(1, 9, (1, 12)), torch.randint(7, (1, 12))
    scores = model(source, target)
    for place in range(12):
        other = source.clone()
        other[0, place] = other[0, place] % 8 + 1
        heard = not torch.allclose(model(other, target)[:, 0], scores[:, 0], atol=1e-5)
        assert heard == (place <= 2)


LOCAL = patterns.local(1)


def test_a_text_longer_than_the_learned_table_is_refused():
    model = Transformer(5, 2, positions="learned", max_length=8)
    assert model(torch.zeros(1, 8).long()).shape == (1, 8, 2)
    with pytest.raises(ValueError, match=r"tokens must be at most max_length=8"):
        model(torch.zeros(1, 9).long())


def test_positions_that_float32_cannot_tell_apart_are_refused():
    assert sinusoidal_positions(2, 4, first=2**24 - 2).unique(dim=0).shape == (2, 4)
    for first in (2**24 - 1, -(2**24) - 1):
        with pytest.raises(ValueError, match=r"within 2\*\*24"):
            sinusoidal_positions(2, 4, first=first)
