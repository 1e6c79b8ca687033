"""Layers and models under a pattern, what they are compared with, and training."""
