"""Train the small language model of the lab, and write its weights as a script.

python scripts/lab_model.py            # about three minutes on one core
python scripts/lab_model.py 20 x.js    # so many steps, into another file

The text is the program text of the experiments (docutils: public domain, Sphinx: BSD
licence). Matrices are stored in 8 bits, with one scale for each row, so that the page
and PyTorch read exactly the same numbers.
"""

import base64
import json
import re
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from attn_tutorial.experiments.data.corpora import fingerprint, source_bytes, windows_of
from attn_tutorial.experiments.studies.language_model import passages
from attn_tutorial.instruments.limits import losses_with_windows
from attn_tutorial.networks.training import fit
from attn_tutorial.networks.transformer import Transformer
from attn_tutorial.patterns import causal

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "book" / "_assets" / "lab" / "weights.js"
SIZE = {"d_model": 64, "num_heads": 4, "num_layers": 4}
TRAINING = {"steps": 1400, "lr": 0.02, "optimizer": "muon", "seed": 0}
BYTES, LENGTH, BATCH = 256, 256, 8
WINDOWS = (4, 16, 64, LENGTH)


def new_model() -> Transformer:
    """An untrained model of the lab's size."""
    return Transformer(BYTES, BYTES, pattern=causal(), positions="rotary", **SIZE)


def train(steps: int) -> Transformer:
    """Train on passages of the text's training part."""
    torch.manual_seed(TRAINING["seed"])
    model, text = new_model(), source_bytes("train")
    options = TRAINING | {"steps": steps}
    fit(model, lambda g: windows_of(text, BATCH, LENGTH, g), **options)
    return model.eval()


def pack(model: nn.Module) -> tuple[list, bytes]:
    """Names and shapes of the weights, and their bytes, one after the other."""
    shapes, parts = [], []
    for name, weight in model.state_dict().items():
        shapes.append([name, list(weight.shape)])
        parts += in_eight_bits(weight) if weight.ndim == 2 else [weight]
    data = b"".join(part.contiguous().numpy().tobytes() for part in parts)
    return shapes, data


def in_eight_bits(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A scale for each row, float32, and the rows in steps of it, int8."""
    scale = matrix.abs().amax(1).clamp(min=1e-12) / 127
    return scale, (matrix / scale[:, None]).round().to(torch.int8)


def unpack(shapes: list, data: bytes) -> dict[str, Tensor]:
    """The weights by name, in float32: the inverse of ``pack``, up to rounding."""
    state, place = {}, 0

    def take(count: int, dtype: torch.dtype) -> Tensor:
        nonlocal place
        start, place = place, place + count * dtype.itemsize
        return torch.frombuffer(bytearray(data[start:place]), dtype=dtype)

    for name, shape in shapes:
        if len(shape) == 1:
            state[name] = take(shape[0], torch.float32)
            continue
        scale = take(shape[0], torch.float32)
        steps = take(shape[0] * shape[1], torch.int8).view(shape)
        state[name] = scale[:, None] * steps
    return state


def load(path: Path = WEIGHTS) -> Transformer:
    """Read the model that the page shows."""
    text = path.read_text(encoding="utf-8")
    stored = json.loads(re.search(r"lab\.weights = (\{.*\});", text, re.S)[1])
    model = new_model()
    model.load_state_dict(unpack(stored["shapes"], base64.b64decode(stored["data"])))
    return model.eval()


def write(model: Transformer, steps: int, path: Path) -> None:
    """Store the weights with what made them, and what windows cost them."""
    shapes, data = pack(model)
    stored = {
        "made": {"text": fingerprint(), "torch": torch.__version__, **TRAINING}
        | {"steps": steps, "length": LENGTH, "batch": BATCH},
        "heads": SIZE["num_heads"],
        "shapes": shapes,
        "data": base64.b64encode(data).decode(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f'"use strict";\nlab.weights = {json.dumps(stored)};\n'
    path.write_text(text, encoding="utf-8")
    stored["made"]["bits"] = bits_with_windows(load(path))
    text = f'"use strict";\nlab.weights = {json.dumps(stored)};\n'
    path.write_text(text, encoding="utf-8")


def bits_with_windows(model: Transformer) -> dict[str, float]:
    """Bits per byte of the validation part, with a window in every layer."""
    text = passages("validation", LENGTH, 64)
    losses = losses_with_windows(model, text[:, :-1], text[:, 1:], WINDOWS)
    bits = (loss / torch.log(torch.tensor(2.0)).item() for loss in losses)
    return dict(zip(map(str, WINDOWS), (round(b, 4) for b in bits), strict=True))


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else TRAINING["steps"]
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else WEIGHTS
    write(train(steps), steps, path)
    print(f"{path}: {path.stat().st_size} bytes")
