"""Parts of a benchmark's record, with the times that a test wants."""

import dataclasses

STEADY = {"spread": 0.0, "tries": 1, "scattered": False}
CALM = {"others": 0.0, "stolen": 0.0, "tries": 1, "disturbed": False}


def seconds(value):
    """Rounds that all took the same, on the wall and of the processor."""
    summary = {"median": value, "quartiles": [value, value], "minimum": value}
    return {"wall": summary, "processor": summary}


def limits(product, copy):
    """A product of 10^9 FLOPs and a copy of 10^9 bytes in so many seconds."""
    return {
        "matmul": {"flops": 10**9, "seconds": seconds(product)},
        "copy": {"bytes": 10**9, "seconds": seconds(copy)},
    }


def entry(case, times, *, executed=1, peaks=None, sweeps=(), product=0.01):
    """A case in which each contender took some seconds.

    `executed` is over the useful FLOPs; `peaks` are bytes, by contender.
    """
    results = [
        {
            "name": name,
            "computes": "pattern",
            "executed_flops": executed * case.useful_flops,
            "largest_error": 1e-7,
            "rounds": 7,
            "seconds": seconds(time),
            "peak_bytes": (peaks or {}).get(name),
        }
        | STEADY
        for name, time in times.items()
    ]
    return {
        "case": dataclasses.asdict(case),
        "sweeps": list(sweeps),
        "useful_flops": case.useful_flops,
        "compulsory_bytes": case.compulsory_bytes,
        "matmul": {"flops": 10**9, "rounds": 7, "seconds": seconds(product)} | STEADY,
        "disturbance": dict(CALM),
        "results": results,
        "not_run": {"natten": "needs a CUDA device"},
    }
