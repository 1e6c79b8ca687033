"""The weights that a translator shows are those that it translates with."""

import pytest
import torch

from attn_tutorial import patterns
from attn_tutorial.networks.layers import MultiHeadAttention
from attn_tutorial.networks.translator import DecoderBlock, EncoderDecoder, Translator


def moved(model):
    """``model`` with weights that are not zero anywhere."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 2
    return model.eval()


def heard(mixer):
    """A list that gets what each later call of ``mixer`` is given first."""
    inputs = []
    mixer.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    return inputs


@pytest.mark.parametrize("padded", [False, True])
def test_alignment_is_what_forward_looks_at(padded):
    past = MultiHeadAttention(8, 2, patterns.causal())
    block = moved(DecoderBlock(8, past, MultiHeadAttention(8, 2)))
    generator = torch.Generator().manual_seed(1)
    x, source = (torch.randn(3, n, 8, generator=generator) for n in (4, 6))
    keep = torch.arange(6) < 4 if padded else torch.ones(6, dtype=torch.bool)
    keep = keep.expand(3, 6)
    queries = heard(block.block.mixer)
    block(x, source, keep)
    look = {"key_value": source, "key_keep": keep, "need_weights": True}
    expected = block.block.mixer(queries[0], **look)[1]
    torch.testing.assert_close(block.alignment(x, source, keep), expected)
    assert (expected[..., 4:] == 0).all() == padded


def test_a_translators_alignment_is_that_of_its_block():
    model = moved(Translator(9, 7, 8, 2))
    source, target = torch.tensor([[3, 4, 5, 0]]), torch.tensor([[1, 2, 3]])
    queries = heard(model.block.block.mixer)
    model(source, target)
    found = model.alignment(source, target)
    assert found.shape == (1, 2, 3, 4)
    torch.testing.assert_close(queries[0], queries[1])


def test_default_widths():
    assert EncoderDecoder(9, 7).source.embedding_dim == 64
    assert Translator(9, 7).source.embedding_dim == 32
