"""Runs in a render process. The only importer of pyvips, pillow-heif and other codecs."""
