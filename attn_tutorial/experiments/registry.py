"""All experiments, the ones that matter most first."""

from __future__ import annotations

from types import ModuleType

from attn_tutorial.experiments.runner import Experiment
from attn_tutorial.experiments.studies import (
    inside,
    language_model,
    latch,
    optimisers,
    recall,
    regularisation,
    step_time,
    structure,
    tagging,
    translation,
    window_advice,
)

__all__ = ["EXPERIMENTS"]

STUDIES = (
    latch,
    language_model,
    recall,
    window_advice,
    inside,
    tagging,
    optimisers,
    translation,
    structure,
    step_time,
    regularisation,
)


def experiment(study: ModuleType) -> Experiment:
    """The experiment that a module describes; its name is the module's."""
    return Experiment(
        name=study.__name__.rpartition(".")[2],
        question=study.QUESTION,
        settings=study.settings,
        train=study.train,
        report=study.report,
        tuning=getattr(study, "TUNING", None),
    )


EXPERIMENTS: dict[str, Experiment] = {e.name: e for e in map(experiment, STUDIES)}
