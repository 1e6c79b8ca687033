"""Compile the Triton kernels for GPUs that need not be there.

    TRITON_INTERPRET=0 python tests/triton_compiler.py

A line for each kernel: compute capability, dtype, name, bytes of shared memory, and
instructions for matrix units. It is a program of its own, since the import of Triton
settles whether it interprets.
"""

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
    # capability, dtype, D, blocks, causal, padding, arguments that are 1: Triton
    # compiles them into the kernel
    (90, "bf16", 128, False, False, True, ("group",)),
    (80, "fp16", 16, True, True, True, ("n_q", "n_k", "left", "offset")),
    (75, "fp16", 16, False, False, False, ("right", "offset")),
    (75, "fp32", 16, True, False, True, ("left", "group")),
]


def compile_kernel(kernel, config, capability, dtype, d, blocks, causal, padding, ones):
    """Compile one configuration of one kernel down to machine code."""
    width = max(16, triton.next_power_of_2(d))
    values = {"D": d, "WIDTH": width, "BLOCKS": blocks, "CAUSAL": causal}
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


def main():
    for variant in VARIANTS:
        for kernel in KERNELS:
            # The second smallest tiles: every GPU is offered them, and loads overlap.
            made = compile_kernel(kernel, kernel.configs[-2], *variant)
            name, shared = kernel.fn.__name__, made.metadata.shared
            products = sum(made.asm["ptx"].count(x) for x in ("mma.sync", "wgmma"))
            print(variant[0], variant[1], name, shared, products)


if __name__ == "__main__":
    main()
