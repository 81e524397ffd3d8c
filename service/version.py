"""The version of Darkroom."""

# Equal to that in pyproject.toml. The metadata of the installed package are not asked for it, because a release has another name.
VERSION = "0.2.0"
