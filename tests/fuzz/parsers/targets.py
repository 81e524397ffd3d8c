"""All fuzz targets by name."""

from __future__ import annotations

from tests.fuzz.parsers import addresses, drawings, fields, files

TARGETS = {**addresses.TARGETS, **fields.TARGETS, **files.TARGETS, **drawings.TARGETS}
