"""Measures the results of `quality=auto` and of the default qualities with SSIMULACRA2: `make quality`."""
