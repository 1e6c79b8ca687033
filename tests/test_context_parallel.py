"""A sequence on 2 and on 4 processes gives what it gives on one."""

import json
import os
import re
import socket
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT
from context_parallel_worker import CASES, D_V, GIVES_UP, HEADS, LENGTHS, D

import attn_tutorial as at
from attn_tutorial import patterns as P
from attn_tutorial import tiled
from attn_tutorial.backends import context_parallel, ring
from attn_tutorial.backends.context_run import Call, launch, lose_a_rank
from attn_tutorial.backends.halo import halo_bytes, plan_halo
from attn_tutorial.backends.ring import all_gather_bytes, ring_bytes

NUMBERS = HEADS[0] * HEADS[1] * (D + D_V)
CAUSAL = P.causal()
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
            process.wait(timeout=200)  # on a busy machine
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
    assert report.get("lse", 0) < 1e-12, case


def pattern_of(setting: dict) -> P.Pattern:
    if "window" in setting:
        pattern = P.local(setting["window"])
    else:
        pattern = P.adjacent_blocks(setting["block_size"])
    return pattern & CAUSAL if setting["causal"] else pattern


@pytest.mark.equation(7)
@pytest.mark.equation(11)
def test_outputs_and_gradients_are_those_of_one_process(found):
    for report in found:
        for case, measured in zip(CASES[len(found)], report["cases"], strict=True):
            check_errors(measured, case)
        assert report["two layers"] < 1e-11


def test_a_rank_computes_the_rows_of_its_own_queries_only(found):
    for rank, report in enumerate(found):
        for (lengths, _), measured in zip(
            CASES[len(found)], report["cases"], strict=True
        ):
            assert measured["rows"] == lengths[rank]


def test_a_second_backward_pass_is_right_and_a_double_one_is_refused(found):
    for report in found:
        assert report["backward twice"]["twice"] < 1e-12
        assert "once_differentiable" in report["backward twice"]["refusal"]


def test_low_precision_is_as_exact_as_it_can_be(found):
    for report in found:
        assert max(report["low precision"]) < 0.03
        assert max(report["half"]) < 0.002


def test_lengths_may_be_given_and_ranks_be_part_of_a_group(found):
    for report in found:
        check_errors(report["lengths given"], "lengths given")
        check_errors(report["group"], "group")
        in_group = report["full in a group"]
        assert max(in_group["outputs"] + in_group["grads"]) < 1e-12
    assert all("must contain this process" in report["outside"] for report in found[2:])


@pytest.mark.equation(19)
def test_the_bytes_sent_are_those_of_the_closed_form(found):
    for index, (lengths, setting) in enumerate(CASES[len(found)]):
        reports = [report["cases"][index] for report in found]
        sent = [report["forward_bytes"] for report in reports]
        back = [report["backward_bytes"] for report in reports]
        options = {"pattern": pattern_of(setting), "bytes_per_number": DOUBLE}
        heads = HEADS[0] * (1 if setting["shared"] else HEADS[1])
        numbers = heads * (D + D_V + bool(setting["padding"]))
        assert sent == halo_bytes(lengths, numbers, **options), (lengths, setting)
        options |= {"backward": True}
        assert back == halo_bytes(lengths, numbers, **options), (lengths, setting)
        assert sum(back) == sum(sent), (lengths, setting)
        assert [[*pair] for pair in zip(sent, back, strict=True)] == [
            report["traffic"] for report in reports
        ]


@pytest.mark.equation(1)
def test_full_attention_by_all_gather_and_by_a_ring(found):
    for report in found:
        for lengths, measured in zip(LENGTHS[len(found)], report["full"], strict=True):
            errors = measured["outputs"] + measured["grads"]
            assert max(errors) < 1e-12, lengths


@pytest.mark.equation(20)
def test_all_gather_and_ring_send_what_their_closed_forms_say(found):
    for index, lengths in enumerate(LENGTHS[len(found)]):
        measured = [report["full"][index] for report in found]
        for backward in (False, True):
            sent = [report["bytes"][backward] for report in measured]
            options = {"backward": backward, "bytes_per_number": DOUBLE}
            assert sent == all_gather_bytes(lengths, NUMBERS, **options)
        sent = [report["ring bytes"] for report in measured]
        assert sent == ring_bytes(lengths, NUMBERS, bytes_per_number=DOUBLE)


def test_ranks_that_disagree_say_so_all(found):
    ranks = len(found)
    for rank, report in enumerate(found):
        assert report["refusals"] == [
            f"window must be the same on all ranks, got {list(range(1, ranks + 1))}",
            f"window[1] must be the same on all ranks, got {list(range(ranks))}",
            f"causal must be the same on all ranks, got {[1] + [0] * (ranks - 1)}",
            f"grad must be the same on all ranks, got {[1] + [0] * (ranks - 1)}",
            f"lengths must hold one length for each of {ranks} ranks, 3 for rank "
            f"{rank}, got [3]",
            f"lengths must hold one length for each of {ranks} ranks, 3 for rank "
            f"{rank}, got {[4] * ranks}",
            f"key_keep must be the same on all ranks, got {[1] + [0] * (ranks - 1)}",
            "key_keep must have shape (3,), got (2,)",
            *["q, k, v must require no gradient: ring_attention has none"] * 2,
        ]


def test_a_lost_rank_gives_an_error_in_time(folder):
    """With 2 processes one is killed, with 4 one is stopped and never answers."""
    lost = reports(folder, "lost")
    for report in lost:
        assert report["error"]
        assert report["seconds"] < 5 * GIVES_UP.total_seconds()  # busy machines


# The program


def test_launch_measures_on_processes():
    settings = {"window": 4, "causal": True, "overlap": True}
    cases = [Call("local", [14, 9], settings, padding=3), Call("ring", [14, 9], {})]
    local, ring = launch(2, cases)
    assert [report["rank"] for report in local] == [0, 1]
    assert [report["tokens"] for report in ring] == [14, 9]
    for report in local:
        assert report["output"] < 1e-12 and report["gradient"] < 1e-12
    sent = [report["forward_bytes"] for report in local]
    options = {"pattern": P.local(4) & CAUSAL, "bytes_per_number": DOUBLE}
    assert sent == halo_bytes([14, 9], cases[0].numbers, **options) == [4 * 66 * 8, 0]
    sent = [report["forward_bytes"] for report in ring]
    assert sent == ring_bytes([14, 9], cases[1].numbers, bytes_per_number=DOUBLE)


def test_launch_says_why_a_rank_failed():
    with pytest.raises(RuntimeError, match="window must be at least 0, got -1"):
        launch(1, [Call("local", [3], {"window": -1})])


def test_launch_gives_up_in_time():
    with pytest.raises(RuntimeError, match="a rank is not done after 0.01 seconds"):
        launch(1, [Call("local", [3], {"window": 1})], timeout=0.01)


def test_a_killed_rank_is_an_error_for_the_others():
    (report,) = lose_a_rank(2, "killed", timeout=20)
    assert report["error"] and report["seconds"] < 20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lose_a_rank(2, "late"), "how must be one of killed, stopped"),
        (lambda: Call("halo", [3], {}), "method must be one of local, sparse, all_"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_torchrun_starts_the_program():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "attn_tutorial.backends.context_run"]
    command += ["--lengths", "31", "19", "--block-size", "6", "--causal"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^   0 +31 .* 3,584 +0$", done.stdout, re.M), done.stdout
    assert re.search(r"^   1 +19 .* 0 +3,584$", done.stdout, re.M), done.stdout


# Order


@pytest.fixture
def alone(tmp_path):
    """A group of this process."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("overlap", [False, True])
def test_with_overlap_rows_are_computed_while_the_halo_travels(
    alone, monkeypatch, overlap
):
    events = []

    def note(place, name, words):
        call = getattr(place, name)

        def noting(*arguments, **options):
            events.append(words(*arguments))
            return call(*arguments, **options)

        monkeypatch.setattr(place, name, noting)

    note(context_parallel.Exchange, "start", lambda *_: "start")
    note(context_parallel.Exchange, "wait", lambda *_: "wait")
    note(context_parallel, "local_attention", lambda q, *_: q.shape[-2])
    note(tiled, "add_gradients", lambda *_: "gradients")
    x = torch.randn(12, 4, requires_grad=True)
    output = context_parallel.context_local_attention(x, x, x, 2, overlap=overlap)
    before, after = ([12], [0, 0]) if overlap else ([0], [0, 12])
    assert events == ["start", *before, "wait", *after]
    events.clear()
    output.sum().backward()
    if overlap:
        assert events == ["start", "gradients", "wait"]
    else:
        assert events == ["gradients", "start", "wait"]


# Half precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_sum_over_70000_equal_keys_is_right(dtype):
    n = 70_000
    q, k = torch.ones(3, 2, dtype=dtype), torch.ones(n, 2, dtype=dtype)
    v = torch.ones(n, 1, dtype=dtype)
    v[: n // 2] = 3
    gathered = ring._exact_attention(q, k, v, None)
    assert gathered.dtype == dtype and (gathered == 2).all()
    output, lse = torch.zeros(3, 1), torch.full((3, 1), -torch.inf)
    for keys, values in zip(k.split(n // 2), v.split(n // 2), strict=True):
        part = ring._part(q.float(), keys, values)
        output, lse = at.online.merge_attention(output, lse, *part)
    torch.testing.assert_close(output, torch.full((3, 1), 2.0), rtol=1e-4, atol=0)
    expected = torch.full((3, 1), 2 + torch.tensor(float(n)).log())
    torch.testing.assert_close(lse, expected)


# Closed forms


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize(("window", "tokens"), [(0, 9), (1, 9), (9, 9)])
def test_a_window_costs_2w_tokens_a_border(ranks, window, tokens):
    pattern = P.local(window)
    for each, sides in ((pattern, 2), (pattern & CAUSAL, 1), (P.local((window, 0)), 1)):
        sent = halo_bytes([tokens] * ranks, 1, each)
        assert sum(sent) == 4 * sides * window * (ranks - 1)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_blocks_that_fill_the_shards_cost_one_block_a_side(blocks):
    sent = halo_bytes([8 * blocks] * 4, 3, P.adjacent_blocks(8), bytes_per_number=2)
    assert sent == [8 * 3 * 2 * sides for sides in (1, 2, 2, 1)]


def test_a_halo_that_covers_everything_costs_as_much_as_a_ring():
    lengths = [5, 2, 7, 1]
    halo = halo_bytes(lengths, 6, P.local(15))
    assert sum(halo) == sum(ring_bytes(lengths, 6)) == 4 * 6 * 15 * 3


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 0, 9, 2], [0, 3], [5]])
@pytest.mark.parametrize(
    "core", [P.local(3), P.local((4, 1)), P.adjacent_blocks(2), P.blocks(3)], ids=str
)
def test_what_is_sent_is_what_is_received(core, lengths, causal):
    pattern, n = core & CAUSAL if causal else core, sum(lengths)
    keep = at.dense_mask(pattern, n)
    plans = [plan_halo(lengths, rank, pattern) for rank in range(len(lengths))]
    for rank, plan in enumerate(plans):
        seen = {j for i in plan.own for j in range(n) if keep[i, j]}
        assert set(plan.run) == seen
        alone = [
            i
            for i in plan.own
            if set(keep[i].nonzero()[:, 0].tolist()) <= set(plan.own)
        ]
        assert list(plan.inner) == alone
        assert [p.received[rank] for p in plans] == list(plan.sent)
        run = [i for part in plan.received for i in part]
        assert sorted([*run, *plan.own]) == list(plan.run)
        assert plan.left + len(plan.own) + plan.right == len(plan.run)


# Wrong arguments


def test_bytes_are_those_of_a_pattern():
    with pytest.raises(
        TypeError, match="pattern must be attn_tutorial patterns, got 3"
    ):
        halo_bytes([3, 3], 1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([3, -1], 1), "lengths must be at least 0, got -1"),
        (([3, 3], 0), "numbers must be at least 1, got 0"),
    ],
)
def test_counts_are_checked(arguments, message):
    for count in (ring_bytes, partial(halo_bytes, pattern=P.local(1))):
        with pytest.raises(ValueError, match=message):
            count(*arguments)
