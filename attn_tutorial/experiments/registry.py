"""All experiments, the ones that matter most first."""

from __future__ import annotations

from attn_tutorial.experiments.runner import Experiment
from attn_tutorial.experiments.studies.inside import EXPERIMENT as INSIDE
from attn_tutorial.experiments.studies.language_model import (
    EXPERIMENT as LANGUAGE_MODEL,
)
from attn_tutorial.experiments.studies.latch import EXPERIMENT as LATCH
from attn_tutorial.experiments.studies.optimisers import EXPERIMENT as OPTIMISERS
from attn_tutorial.experiments.studies.recall import EXPERIMENT as RECALL
from attn_tutorial.experiments.studies.regularisation import (
    EXPERIMENT as REGULARISATION,
)
from attn_tutorial.experiments.studies.step_time import EXPERIMENT as STEP_TIME
from attn_tutorial.experiments.studies.structure import EXPERIMENT as STRUCTURE
from attn_tutorial.experiments.studies.tagging import EXPERIMENT as TAGGING
from attn_tutorial.experiments.studies.translation import EXPERIMENT as TRANSLATION
from attn_tutorial.experiments.studies.window_advice import EXPERIMENT as WINDOW_ADVICE

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
