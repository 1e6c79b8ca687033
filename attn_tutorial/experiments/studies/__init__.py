"""Studies: each asks one question, trains for it, and reports the answer."""
