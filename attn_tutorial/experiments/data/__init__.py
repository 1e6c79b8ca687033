"""Texts and labels that the studies train on."""
