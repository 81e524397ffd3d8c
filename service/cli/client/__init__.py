"""The HTTP client of the `darkroom` command."""
