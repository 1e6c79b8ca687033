"""A browser's record is read, checked, and shown beside ours.

tests/test_lab.py reads one that the real page made; these are made up, to be spoilt.
"""

import copy
import json

import pytest

from attn_tutorial import benchmark
from attn_tutorial.benchmark import __main__, browser
from attn_tutorial.benchmark.cases import Case
from attn_tutorial.benchmark.load import Unreadable, exponent, read

OURS = benchmark.load("cpu")


def entry(case: Case, seconds: float) -> dict:
    """A case as the page writes it."""
    of = {"median": seconds, "quartiles": [seconds, seconds], "minimum": seconds}
    result = {"name": "webgpu", "computes": "pattern", "largest_error": 1e-6,
              "seconds": {"wall": of}, "executed_flops": case.useful_flops,
              "rounds": 7, "tries": 1, "spread": 0.0, "scattered": False,
              "peak_bytes": None}  # fmt: skip
    counts = (case.useful_flops, case.compulsory_bytes)
    return {"case": dict(case.__dict__), "sweeps": ["length"], "not_run": {},
            "useful_flops": counts[0], "compulsory_bytes": counts[1],
            "results": [result]}  # fmt: skip


def made_up(kind: str = "gpu") -> dict:
    """Full attention of n^2 ns and a window of 100 n ns, on some device."""
    lengths = (256, 512, 1024, 2048, 4096)
    cases = [entry(Case("full", n, heads=4), n * n * 1e-9) for n in lengths]
    cases += [entry(Case("local", n, 128, heads=4), n * 1e-7) for n in lengths]
    device = {"name": "Abacus 3", "kind": kind, "buffer_bytes": 2**27}
    known = {"device": device, "clock": "wall", "browser": "Lynx/2", "threads": 4,
             "kernel": "0123abcd", "date": "2026-12-01T10:00:00+00:00"}  # fmt: skip
    return {"schema": "lab 1", "suite": "lab", "settings": {"heads": 4, "d": 64},
            "provenance": known, "cases": cases}  # fmt: skip


def written(folder, data: dict):
    path = folder / "webgpu-2026-12-01.json"
    path.write_text(json.dumps(data))
    return path


def rows(text: str, title: str) -> list[list[str]]:
    """The rows of a table in a text, cut where two spaces or more are."""
    lines = text.split(title)[1].split("\n\n")[0].splitlines()[2:]
    return [[x.strip() for x in line.split("  ") if x.strip()] for line in lines]


def test_it_is_shown_with_its_device_and_beside_ours(tmp_path, capsys):
    __main__.main(["show", str(written(tmp_path, made_up()))])
    text = capsys.readouterr().out
    assert "theirs: Abacus 3 (a GPU), 2026-12-01T10:00:00+00:00" in text
    assert f"ours: {OURS.source}" in text and "says nothing" not in text
    table = {(n, name): rest for n, name, *rest in rows(text, "Forward, float32")}
    case = Case("local", 4096, 128)
    rate = Case("local", 4096, 128, heads=4).useful_flops / 4.096e-4 / 1e9
    mine = case.useful_flops / OURS.seconds("tiled", case).median / 1e9
    part = (OURS.seconds("tiled", case).median
            / OURS.seconds("sdpa full", case).median)  # fmt: skip
    assert table["4,096", "local, w = 128"] == [
        "0.41", "0.41 to 0.41", f"{rate:.3g}", "0.0244", f"{mine:.3g}", f"{part:.3g}"
    ]  # fmt: skip
    assert table["4,096", "full"][3] == "1"
    grown = {row[0]: row[1:] for row in rows(text, "Time grows")}
    assert grown["full"][:2] == ["1,024", "2.00"]
    assert grown["local, w = 128"][:2] == ["1,024", "1.00"]
    points = {n: OURS.seconds("tiled", Case("local", n, 128)).median
              for n in (1024, 2048, 4096)}  # fmt: skip
    assert grown["local, w = 128"][2] == f"{exponent(points):.2f}"


def test_a_processor_is_called_one(tmp_path):
    record = browser.read(written(tmp_path, made_up("cpu")))
    assert record.device == "Abacus 3 (a processor, not a GPU)"
    assert "its times say nothing of a GPU" in browser.show(record, OURS)


def test_without_records_of_ours_the_columns_are_empty(tmp_path):
    record = browser.read(written(tmp_path, made_up()))
    text = browser.show(record, benchmark.Records())
    assert "ours: no records" in text
    assert len(rows(text, "Forward, float32")[0]) == 6


def spoilt(change) -> dict:
    data = copy.deepcopy(made_up())
    change(data)
    return data


def result(data: dict) -> dict:
    return data["cases"][-1]["results"][0]


SPOILT = {
    "schema 'lab 9'": lambda d: d.update(schema="lab 9"),
    "no 'provenance'": lambda d: d.pop("provenance"),
    "kind must be one of gpu, cpu": lambda d: d["provenance"]["device"].update(
        kind="x"
    ),
    "clock must be": lambda d: d["provenance"].update(clock="sundial"),
    "must be texts, got 3": lambda d: d["provenance"].update(browser=3),
    "useful_flops of": lambda d: d["cases"][3].update(useful_flops=1),
    "compulsory_bytes of": lambda d: d["cases"][3].update(compulsory_bytes=1),
    "no mechanism 'x'": lambda d: d["cases"][0]["case"].update(mechanism="x"),
    "unexpected keyword": lambda d: d["cases"][0]["case"].update(colour="red"),
    "not in order": lambda d: result(d)["seconds"]["wall"].update(median=-1.0),
    "largest_error": lambda d: result(d).update(largest_error=0.01),
    "executes fewer": lambda d: result(d).update(executed_flops=1),
    "no 'wall'": lambda d: result(d).update(seconds={}),
}


@pytest.mark.parametrize("message", SPOILT)
def test_what_cannot_be_is_refused(tmp_path, message):
    path = written(tmp_path, spoilt(SPOILT[message]))
    with pytest.raises(Unreadable, match=message):
        browser.read(path)


def test_other_commands_say_who_reads_it(tmp_path):
    path = written(tmp_path, made_up())
    with pytest.raises(Unreadable, match="a browser's record: `show` reads it"):
        read(path)
    assert browser.is_browser(path) and not browser.is_browser(tmp_path)
    (tmp_path / "other.json").write_text('{"schema": 2}')
    assert not browser.is_browser(tmp_path / "other.json")
