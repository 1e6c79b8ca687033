"""All experiments, the ones that matter most first."""

from __future__ import annotations

from attn_tutorial.experiments.inside import EXPERIMENT as INSIDE
from attn_tutorial.experiments.language_model import EXPERIMENT as LANGUAGE_MODEL
from attn_tutorial.experiments.latch import EXPERIMENT as LATCH
from attn_tutorial.experiments.optimisers import EXPERIMENT as OPTIMISERS
from attn_tutorial.experiments.recall import EXPERIMENT as RECALL
from attn_tutorial.experiments.regularisation import EXPERIMENT as REGULARISATION
from attn_tutorial.experiments.runner import Experiment
from attn_tutorial.experiments.step_time import EXPERIMENT as STEP_TIME
from attn_tutorial.experiments.structure import EXPERIMENT as STRUCTURE
from attn_tutorial.experiments.tagging import EXPERIMENT as TAGGING
from attn_tutorial.experiments.translation import EXPERIMENT as TRANSLATION
from attn_tutorial.experiments.window_advice import EXPERIMENT as WINDOW_ADVICE

__all__ = ["EXPERIMENTS"]

ORDER = (
    LATCH,
    LANGUAGE_MODEL,
    RECALL,
    WINDOW_ADVICE,
    INSIDE,
    TAGGING,
    OPTIMISERS,
    TRANSLATION,
    STRUCTURE,
    STEP_TIME,
    REGULARISATION,
)
EXPERIMENTS: dict[str, Experiment] = {e.name: e for e in ORDER}
