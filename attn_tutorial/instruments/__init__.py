"""Instruments: what measures patterns, models and programs, and advises on them."""
