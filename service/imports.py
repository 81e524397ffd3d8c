"""Quick imports for the start of a server. `tests/test_start_budget.py` holds what may be imported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# structlog imports Rich if it is installed, for tracebacks in color, which the log never has; Litestar imports the others, for models of
# theirs, which no handler has. They take a quarter of the time of a start.
_UNUSED = ("annotated_types", "attr", "attrs", "pydantic", "rich")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Return a context in which modules are imported without garbage collections, and as if `_UNUSED` were not installed.

    Collections do not search what exists at its end.
    """
    absent = [name for name in _UNUSED if name not in sys.modules]
    # An import of a module that is `None` fails (PEP 302, sys.modules).
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    gc.disable()
    try:
        yield
    finally:
        # Modules stay. The first collection afterwards would search all of their objects.
        gc.freeze()
        gc.enable()
        for name in absent:
            del sys.modules[name]
