"""The commands of `darkroom` that have a module of their own."""
