"""Trained experiments and their records.

    python -m attn_tutorial.experiments list            what there is, and what is done
    python -m attn_tutorial.experiments run NAME        train what is missing, record it
    python -m attn_tutorial.experiments report NAME     print the tables of a record

A run that is killed is lost; all others are recorded, and the same command goes on.
"""

from attn_tutorial.experiments.records import Run, Runs, load
from attn_tutorial.experiments.registry import EXPERIMENTS
from attn_tutorial.experiments.runner import run_experiment

__all__ = ["EXPERIMENTS", "Run", "Runs", "load", "run_experiment"]
