"""Compile the Triton kernels for GPUs that need not be there.

    TRITON_INTERPRET=0 python tests/triton_compiler.py variants
    TRITON_INTERPRET=0 python tests/triton_compiler.py sizes 4

`variants` compiles one size of each kernel for some GPUs, patterns and arguments.
`sizes` compiles the first so many that would be tried for bfloat16 on an H100, and
reads the machine code. A line of JSON for each. It is a program of its own, since the
import of Triton settles whether it interprets.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from attn_tutorial.backends import triton_local as kernels

TENSORS = {"q", "k", "v", "out", "grad", "dq", "dk", "dv"}
KERNELS = (
    kernels.forward_kernel,
    kernels.query_gradient_kernel,
    kernels.key_gradient_kernel,
)
NUMBERS = {"n_q", "n_k", "left", "right", "offset", "group"}
VARIANTS = [
    # capability, dtype, D, blocks, causal, padding, heads in a tile, arguments that are
    # 1: Triton compiles them into the kernel
    (90, "bf16", 128, False, False, True, 1, ("group",)),
    (90, "bf16", 40, True, True, False, 8, ()),
    (80, "fp16", 16, True, True, True, 1, ("n_q", "n_k", "left", "offset")),
    (75, "fp16", 16, False, False, False, 2, ("right", "offset")),
    (75, "fp32", 16, True, False, True, 1, ("left", "group")),
]


def compile_kernel(
    kernel, config, capability, dtype, d, blocks, causal, padding, pack, ones
):
    """Compile one configuration of one kernel down to machine code."""
    width = max(16, triton.next_power_of_2(d))
    values = {"D": d, "WIDTH": width, "BLOCKS": blocks, "CAUSAL": causal}
    if "PACK" in kernel.fn.arg_names:
        values["PACK"] = pack
    values |= config.kwargs | dict.fromkeys(ones, 1)
    if not padding:
        values |= {"keep": None, "grad_lse": None}
    types = {"keep": "*u8", "logsum": "*fp32", "mean": "*fp32", "scale": "fp32"}
    types |= (
        {"grad_lse": "*fp32"}
        | dict.fromkeys(NUMBERS, "i32")
        | dict.fromkeys(TENSORS, f"*{dtype}")
    )
    names = kernel.fn.arg_names
    signature = {x: "constexpr" if x in values else types[x] for x in names}
    places = {(k,): values[x] for k, x in enumerate(names) if x in values}
    aligned = {
        (k,): [["tt.divisibility", 16]]
        for k, x in enumerate(names)
        if signature[x].startswith("*")
    }
    source = ASTSource(kernel.fn, signature, places, aligned)
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return triton.compile(source, GPUTarget("cuda", capability, 32), options)


def tried(kernel, d):
    """The configurations that are tried for bfloat16 on a GPU with matrix units."""
    torch.cuda.get_device_capability = lambda device: (9, 0)
    tensors = {"q": torch.empty(0, dtype=torch.bfloat16)}
    return kernels.affordable(kernel.configs, tensors, WIDTH=d)


def disassembler():
    """NVIDIA's cuobjdump: the one that comes with Triton, or the system's."""
    beside = Path(triton.__file__).with_name("backends") / "nvidia/bin/cuobjdump"
    return str(beside) if beside.exists() else shutil.which("cuobjdump")


def read_machine_code(made):
    """Registers, bytes of stack, and instructions that multiply or copy tiles."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        use, code = (
            subprocess.run(
                [disassembler(), option, file.name],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    numbers = dict(re.findall(r"(\w+):(\d+)", use))
    return {
        "registers": int(numbers["REG"]),
        "stack": int(numbers["STACK"]),
        "wgmma": len(re.findall(r"\bHGMMA\b", code)),
        "copies": len(re.findall(r"\bLDGSTS\b", code)),
        "instructions": len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", code, re.M)),
    }


def describe(kernel, config, variant):
    """What is known of one compiled kernel."""
    made = compile_kernel(kernel, config, *variant)
    products = sum(made.asm["ptx"].count(x) for x in ("mma.sync", "wgmma"))
    known = {"kernel": kernel.fn.__name__, "variant": variant}
    known |= {"config": str(config), "shared": made.metadata.shared}
    return made, known | {"products": products}


def main(what, first="4"):
    if what == "sizes" and disassembler() is None:
        return
    for kernel in KERNELS:
        if what == "variants":
            # The second smallest tiles: every GPU is offered them, and loads overlap.
            jobs = [(kernel.configs[-2], variant) for variant in VARIANTS]
        else:
            jobs = [
                (config, (90, "bf16", d, False, False, False, pack, ()))
                for d in (64, 128)
                for config in tried(kernel, d)[:-1][
                    : int(first)
                ]  # the last has no wgmma
                for pack in ((1, 8) if "PACK" in kernel.fn.arg_names else (1,))
            ]
        for config, variant in jobs:
            made, known = describe(kernel, config, variant)
            if what == "sizes":
                known |= read_machine_code(made)
            print(json.dumps(known))


if __name__ == "__main__":
    main(*sys.argv[1:])
