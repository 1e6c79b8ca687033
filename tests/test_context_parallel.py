"""A sequence on 2 and on 4 processes gives what it gives on one."""

import json
import os
import socket
import subprocess
import sys
from functools import partial

import pytest
from conftest import ROOT
from context_parallel_worker import CASES, D_V, GIVES_UP, HEADS, LENGTHS, D

from attn_tutorial.backends.context_parallel import (
    block_reach,
    halo_bytes,
    plan_halo,
    ring_bytes,
    window_reach,
)

NUMBERS = HEADS[0] * HEADS[1] * (D + D_V)
DOUBLE = 8  # bytes


def start(rank: int, ranks: int, folder) -> subprocess.Popen:
    loopback = next(n for _, n in socket.if_nameindex() if n.startswith("lo"))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": loopback,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    script = str(ROOT / "tests" / "context_parallel_worker.py")
    command = [sys.executable, "-W", "error", script, str(rank), str(ranks), folder]
    with (folder / f"{rank}.log").open("w") as log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=log)


def run(ranks: int, folder) -> None:
    """Start all ranks and wait until all but the last, which gets lost, are done."""
    processes = [start(rank, ranks, folder) for rank in range(ranks)]
    try:
        for process in processes[:-1]:
            process.wait(timeout=100)
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=CASES, ids="{} processes".format)
def folder(request, tmp_path_factory):
    """The reports of that many processes."""
    folder = tmp_path_factory.mktemp("ranks")
    run(request.param, folder)
    return folder


def reports(folder, ending: str) -> list[dict]:
    logs, paths = sorted(folder.glob("*.log")), sorted(folder.glob(f"*.{ending}"))
    complete = len(paths) == len(logs) - (ending == "lost")
    assert complete, "".join(path.read_text() for path in logs)
    return [json.loads(path.read_text()) for path in paths]


@pytest.fixture
def found(folder):
    """What each rank found."""
    return reports(folder, "json")


def check_errors(report: dict, case) -> None:
    assert report["output"] < 1e-12, case
    assert max(report["grads"]) < 1e-12, case


@pytest.mark.equation(2)
@pytest.mark.equation(3)
def test_outputs_and_gradients_are_those_of_one_process(found):
    for report in found:
        for case, measured in zip(CASES[len(found)], report["cases"], strict=True):
            check_errors(measured, case)
        assert report["two layers"] < 1e-11


def test_lengths_may_be_given_and_ranks_be_part_of_a_group(found):
    for report in found:
        check_errors(report["lengths given"], "lengths given")
        check_errors(report["group"], "group")
    assert all("must contain this process" in report["outside"] for report in found[2:])


def test_the_bytes_sent_are_those_of_the_closed_form(found):
    for index, (lengths, setting) in enumerate(CASES[len(found)]):
        sent = [report["cases"][index]["forward_bytes"] for report in found]
        back = [report["cases"][index]["backward_bytes"] for report in found]
        options = setting | {"bytes_per_number": DOUBLE}
        assert sent == halo_bytes(lengths, NUMBERS, **options), (lengths, setting)
        assert sum(back) == sum(sent), (lengths, setting)


def test_a_ring_sends_what_its_closed_form_says(found):
    lengths = LENGTHS[len(found)][1]
    sent = [report["ring"] for report in found]
    assert sent == ring_bytes(lengths, D + D_V, bytes_per_number=DOUBLE)


def test_ranks_that_disagree_say_so_all(found):
    ranks = len(found)
    for rank, report in enumerate(found):
        assert report["refusals"] == [
            f"window must be the same on all ranks, got {list(range(1, ranks + 1))}",
            f"causal must be the same on all ranks, got {[1] + [0] * (ranks - 1)}",
            f"grad must be the same on all ranks, got {[1] + [0] * (ranks - 1)}",
            f"lengths must hold one length for each of {ranks} ranks, 3 for rank "
            f"{rank}, got [3]",
            f"lengths must hold one length for each of {ranks} ranks, 3 for rank "
            f"{rank}, got {[4] * ranks}",
        ]


def test_a_lost_rank_gives_an_error_in_time(folder):
    """With 2 processes one is killed, with 4 one is stopped and never answers."""
    lost = reports(folder, "lost")
    for report in lost:
        assert report["error"]
        assert report["seconds"] < 5 * GIVES_UP.total_seconds()  # busy machines


# Closed forms


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize(("window", "tokens"), [(0, 9), (1, 9), (9, 9)])
def test_a_window_costs_2w_tokens_a_border(ranks, window, tokens):
    for causal, sides in ((False, 2), (True, 1)):
        sent = halo_bytes([tokens] * ranks, 1, window=window, causal=causal)
        assert sum(sent) == 4 * sides * window * (ranks - 1)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_blocks_that_fill_the_shards_cost_one_block_a_side(blocks):
    sent = halo_bytes([8 * blocks] * 4, 3, block_size=8, bytes_per_number=2)
    assert sent == [8 * 3 * 2 * sides for sides in (1, 2, 2, 1)]


def test_a_halo_that_covers_everything_costs_as_much_as_a_ring():
    lengths = [5, 2, 7, 1]
    halo = halo_bytes(lengths, 6, window=15)
    assert sum(halo) == sum(ring_bytes(lengths, 6)) == 4 * 6 * 15 * 3


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 0, 9, 2], [0, 3], [5]])
def test_what_is_sent_is_what_is_received(lengths, causal):
    for reach in (
        partial(window_reach, window=3, causal=causal),
        partial(block_reach, block_size=2, causal=causal),
    ):
        plans = [plan_halo(lengths, rank, reach) for rank in range(len(lengths))]
        for rank, plan in enumerate(plans):
            assert [p.received[rank] for p in plans] == list(plan.sent)
            run = [i for part in plan.received for i in part]
            assert sorted([*run, *plan.own]) == list(plan.run)


def test_the_reach_is_the_smallest_run_with_all_keys_that_are_seen():
    n, shards = 13, [range(0, 0), range(0, 5), range(5, 6), range(6, 13)]
    for own in shards:
        for w in range(15):
            seen = [j for j in range(n) if any(abs(i - j) <= w for i in own)]
            assert list(window_reach(own, n, w)) == seen
        for b in range(1, 15):
            seen = [j for j in range(n) if any(abs(i // b - j // b) <= 1 for i in own)]
            assert list(block_reach(own, n, b)) == seen


# Wrong arguments


@pytest.mark.parametrize("wrong", [{}, {"window": 1, "block_size": 1}])
def test_bytes_are_those_of_one_pattern(wrong):
    with pytest.raises(TypeError, match="give exactly one of window and block_size"):
        halo_bytes([3, 3], 1, **wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([3, -1], 1), "lengths must be at least 0, got -1"),
        (([3, 3], 0), "numbers must be at least 1, got 0"),
    ],
)
def test_counts_are_checked(arguments, message):
    for count in (ring_bytes, partial(halo_bytes, window=1)):
        with pytest.raises(ValueError, match=message):
            count(*arguments)
