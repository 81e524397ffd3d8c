"""The `darkroom` command."""
