from collections import deque

import pytest
import torch

from attn_tutorial import dense_mask, patterns
from attn_tutorial.instruments import graph

PATTERNS = [
    patterns.full(),
    patterns.causal(),
    patterns.local(0),
    patterns.local(3),
    patterns.local(3) & patterns.causal(),
    patterns.adjacent_blocks(4),
    patterns.dilated(2, 3),
    patterns.strided(5),
    patterns.local(1) | patterns.global_tokens(1),
    patterns.random_blocks(2, 11, 2, seed=3),
]


def breadth_first(keep, start):
    """Layers until each token has heard of ``start``, found with a queue."""
    found, queue = {start: 0}, deque([start])
    while queue:
        j = queue.popleft()
        for i in range(len(keep)):
            if keep[i][j] and i not in found:
                found[i] = found[j] + 1
                queue.append(i)
    return [found.get(i, -1) for i in range(len(keep))]


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@pytest.mark.parametrize("n", [1, 2, 7, 22])
def test_hops_are_the_shortest_paths(pattern, n):
    keep = dense_mask(pattern, n).tolist()
    expected = torch.tensor([breadth_first(keep, j) for j in range(n)]).T
    assert torch.equal(graph.hops(pattern, n), expected)


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@pytest.mark.parametrize("layers", [0, 1, 2, 5])
def test_reach_is_a_boolean_power(pattern, layers):
    n = 15
    power = torch.eye(n, dtype=torch.int64)
    step = dense_mask(pattern, n).long() + torch.eye(n, dtype=torch.int64)
    for _ in range(layers):
        power = (step @ power).clamp(max=1)
    assert torch.equal(graph.reach_mask(pattern, n, layers), power.bool())


@pytest.mark.parametrize("layers", [0, 1, 2, 3, 5, 10**9])
def test_layers_of_several_patterns_take_turns(layers):
    several = [patterns.causal() & patterns.local(1), patterns.local(4)]
    reached = graph.reach_mask(several, 13, layers)
    found = [{i} for i in range(13)]
    for layer in range(min(layers, 26)):
        keep = dense_mask(several[layer % 2], 13).tolist()
        heard = [[j for j in range(13) if keep[i][j]] for i in range(13)]
        found = [set.union(*(found[j] for j in heard[i])) for i in range(13)]
    assert [set(row.nonzero()[:, 0].tolist()) for row in reached] == found


def test_an_edge_leads_from_key_to_query():
    keep = graph.reach_mask(patterns.causal() & patterns.local(1), 6, 2)
    assert keep[5].tolist() == [False, False, False, True, True, True]
    assert keep[0].tolist() == [True, False, False, False, False, False]


def test_no_token_no_graph():
    assert graph.hops(patterns.local(2), 0).shape == (0, 0)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="layers must be at least 0, got -1"):
        graph.reach_mask(patterns.local(1), 4, -1)
    with pytest.raises(TypeError, match=r"layers must be an integer, got 1\.5"):
        graph.reach_mask(patterns.local(1), 4, 1.5)
    with pytest.raises(TypeError, match="pattern"):
        graph.hops("local", 4)
