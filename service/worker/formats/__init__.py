"""One module for each file format: its structure, its bounds and its quirks."""
