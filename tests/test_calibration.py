"""What a call is said to do is what it does; prices are found; cases are apart."""

import itertools
import json
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attn_tutorial import cost
from attn_tutorial.benchmark import calibration
from attn_tutorial.benchmark.__main__ import main
from attn_tutorial.benchmark.calibration import Machine, kind, work_of
from attn_tutorial.benchmark.cases import Case
from attn_tutorial.cost import Work


class Watch(TorchDispatchMode):
    """Counts products, and the pairs of queries and keys in them."""

    def __init__(self):
        super().__init__()
        self.calls, self.pairs, self.keys, self.tiles = 0, 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if "scaled_dot_product" in name:
            q, k = args[:2]
            tiles = math.prod(q.shape[:2])
            self.calls += 1
            self.tiles += tiles
            self.pairs += tiles * q.shape[-2] * k.shape[-2]
            self.keys += tiles * k.shape[-2]
        if name in ("bmm", "baddbmm_"):
            self.calls += 1
        return func(*args, **kwargs or {})


def watched(case):
    """The run itself, or the backward pass alone."""
    *inputs, grad = case.inputs()
    output = calibration.routine(case)(*inputs)
    with Watch() as watch:
        if case.backward:
            torch.autograd.grad(output, inputs, grad)
        else:
            calibration.routine(case)(*inputs)
    return watch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CASES = [
    Case(mechanism, n, size, causal, False, heads, 16)
    for (n, size, heads), mechanism, causal in itertools.product(
        ((100, 7, 2), (700, 300, 3), (2000, 64, 1), (513, 16, 8)),
        ("local", "blocks"),
        (False, True),
    )
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_work_is_what_the_routine_does(case):
    work, watch = work_of(case), watched(case)
    assert (work.calls, work.tiles) == (watch.calls, watch.tiles)
    assert work.scores == watch.pairs and work.products == 16 * watch.pairs
    assert work.reads == 16 * watch.keys
    assert work.numbers == case.heads * case.n * 16


@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_of_the_backward_pass_are_counted(case):
    case = calibration.replace(case, backward=True)
    assert work_of(case).calls == watched(case).calls


def test_prices_are_found_again():
    price = Work(5e-11, 1e-9, 3e-9, 0.0, 2e-7, 1e-5, 1e-4)
    works = [work_of(case) for case in CASES]
    seconds = [cost.predict(work, price) for work in works]
    found = calibration.fitted(works, seconds)
    for work, second in zip(works, seconds, strict=True):
        assert cost.predict(work, found) == pytest.approx(second, rel=1e-6)
    assert min(found) >= 0


def test_no_price_is_negative_even_if_the_times_would_like_it():
    works = [Work(*parts, 0, 0, 0, 0, 1) for parts in ((1, 0), (2, 1), (3, 2))]
    found = calibration.fitted(works, [3.0, 5.0, 7.0])
    assert min(found) >= 0


def test_a_machine_is_written_and_read(tmp_path):
    case = Case("local", 4096, 64)
    machine = Machine({kind(case): Work(5e-11, 1e-9, 3e-9, 0, 0, 0, 0)}, {"torch": "2"})
    machine.write(tmp_path / "here" / "machine.json")
    again = Machine.read(tmp_path / "here" / "machine.json")
    assert again == machine and again.predict(case) == machine.predict(case)
    with pytest.raises(ValueError, match="case must be one of .*got 'full float32 fo"):
        machine.predict(Case("full", 64))


def test_a_judgement_uses_no_calibration_case_and_is_recorded(monkeypatch):
    prices = Work(5e-11, 1e-9, 3e-9, 0, 0, 0, 0)
    kinds = [
        f"{routine} {dtype} {direction}"
        for routine in ("tiled", "full")
        for dtype in calibration.DTYPES
        for direction in ("forward", "backward")
    ]
    machine = Machine(dict.fromkeys(kinds, prices), {})
    monkeypatch.setattr(
        calibration,
        "times",
        lambda cases, rounds: {case: 2 * machine.predict(case) for case in cases},
    )
    judged = calibration.judge_predictions(machine, count=12, limit=0.05)
    used = {
        c for dtype in calibration.DTYPES for c in calibration.calibration_cases(dtype)
    }
    assert len({one.case for one in judged}) == 12
    assert not used & {one.case for one in judged}
    assert all(one.error == pytest.approx(-0.5) for one in judged)
    assert all(one.predicted <= 0.05 for one in judged)
    with pytest.raises(ValueError, match="limit must leave 3 cases, got 0 s: 0"):
        calibration.judge_predictions(machine, count=3, limit=0)
    assert "12 cases: median error 50.0%, 0 within 25 %" in calibration.table(judged)
    assert (
        len(json.loads(json.dumps(calibration.record(machine, judged)))["cases"]) == 12
    )


def test_calibration_times_every_kind_and_predicts(monkeypatch):
    few = [Case("local", n, 8, heads=1, d=16) for n in (64, 128, 192, 256, 320)]
    monkeypatch.setattr(calibration, "calibration_cases", lambda dtype: few)
    machine = calibration.calibrate(rounds=2, dtypes=("float32",))
    assert set(machine.prices) == {"tiled float32 forward"}
    assert 1e-6 < machine.predict(few[0]) < 1


def test_the_command_line_predicts_once_calibrated(monkeypatch, tmp_path, capsys):
    price = Work(5e-11, 1e-9, 3e-9, 0, 0, 0, 0)
    kinds = ("tiled float32 forward", "full float32 forward")
    machine = Machine(dict.fromkeys(kinds, price), {})
    monkeypatch.setattr(calibration, "HERE", tmp_path / "machine.json")
    monkeypatch.setattr(calibration, "calibrate", lambda: machine)
    command = ["predict", "local", "--n", "4096", "--size", "64"]
    with pytest.raises(SystemExit, match="benchmark calibrate"):
        main(command)
    main(["calibrate"])
    main(command)
    answer = calibration.answer(machine, Case("local", 4096, 64))
    assert capsys.readouterr().out.endswith(f"machine.json\n{answer}\n")


def test_the_command_line_judges(monkeypatch, tmp_path, capsys):
    judged = [calibration.Judged(Case("local", 64, 4), 1.0, 2.0)]
    monkeypatch.setattr(calibration, "HERE", tmp_path / "machine.json")
    monkeypatch.setattr(
        calibration, "judge_predictions", lambda machine, count, seed: judged
    )
    Machine({}, {"torch": "2"}).write(calibration.HERE)
    main(["judge", "--out", str(tmp_path / "judged.json")])
    assert "1 cases: median error 50.0%" in capsys.readouterr().out
    monkeypatch.setattr(calibration, "FOLDERS", (tmp_path / "none", tmp_path))
    machine = Machine({}, {"torch": "2"})
    assert calibration.recorded("judged") == (machine, judged)
    with pytest.raises(LookupError, match="name must be .*, got 'unjudged'"):
        calibration.recorded("unjudged")
    stored = json.loads((tmp_path / "judged.json").read_text())
    assert stored["cases"][0]["measured"] == 2.0 and stored["facts"] == {"torch": "2"}
