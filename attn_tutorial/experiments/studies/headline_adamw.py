"""Headline with AdamW: is the lead of a window there with another optimiser, too?

The first pair of ``headline``, trained as long on the same batches, by AdamW in place
of Muon. Its rates are tuned in the same way, around others.
"""

from __future__ import annotations

from attn_tutorial.experiments.records import Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies import headline
from attn_tutorial.experiments.studies.headline import report, train

__all__ = ["QUESTION", "TUNING", "report", "settings", "train"]

QUESTION = "Is a window ahead of full attention with AdamW, too?"
TUNING = Tuning((0.002, 0.004, 0.008), "validation_bits")


def settings(quick: bool) -> list[Setting]:
    """Full attention and a window of 64, trained by AdamW."""
    changes = {"optimizer": "adamw", "lr": 0.004}
    chosen = [s for s in headline.settings(quick) if s["name"] in ("full", "local 64")]
    return [{**setting, **changes} for setting in chosen]
