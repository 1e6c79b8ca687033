"""Figures that are drawn from the records of the studies."""
