"""All experiments, the ones that matter most first."""

from __future__ import annotations

from types import ModuleType

from attn_tutorial.experiments.runner import Experiment
from attn_tutorial.experiments.studies import (
    advice_tasks,
    converting,
    deep_recall,
    entities,
    headline,
    headline_adamw,
    help_translation,
    inside,
    language_model,
    latch,
    layer_search,
    live_translation,
    optimisers,
    recall,
    recognition,
    regularisation,
    sinks,
    step_time,
    structure,
    tagging,
    topics,
    trajectories,
    translation,
    window_advice,
    writing,
)

__all__ = ["EXPERIMENTS"]

# On data of Debian packages: see ``experiments.data.packages``.
APPLICATIONS = (
    help_translation,
    live_translation,
    topics,
    entities,
    recognition,
    writing,
)
STUDIES = (
    latch,
    language_model,
    headline,
    headline_adamw,
    trajectories,
    sinks,
    layer_search,
    recall,
    deep_recall,
    window_advice,
    advice_tasks,
    inside,
    tagging,
    optimisers,
    translation,
    structure,
    step_time,
    regularisation,
    converting,
    *APPLICATIONS,
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
