"""Fuzz targets for the parsers that read bytes of strangers: addresses, header fields, image files, metadata and drawings.

`make fuzz-parsers` runs them under atheris, which follows the coverage; `tests/fuzz/test_parsers.py` replays seeds, mutations of them and
the inputs that once failed, without atheris.
"""
