"""Measurements of Darkroom against bare limits: `python -m tests.bench [--quick]` from the repository's root."""
