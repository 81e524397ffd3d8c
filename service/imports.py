"""Quick imports for the start of a server. `tests/test_start_budget.py` holds what may be imported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

# structlog imports Rich if it is installed, for tracebacks in color, which the log never has, and greenlet, for a class that it has
# deprecated. Granian imports dotenv, for files that are not given to it, and Litestar the others, for models of theirs, which no handler
# has. They take a quarter of the time of a start.
_UNUSED = ("annotated_types", "attr", "attrs", "dotenv", "greenlet", "pydantic", "rich")

# Litestar always imports these, for a debugger and for the API's description in YAML.
_LAZY = ("pdb", "yaml")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Return a context in which modules are imported without garbage collections, and as if `_UNUSED` were not installed.

    Those of `_LAZY` are imported by the first use of an attribute. Collections do not search what exists at the end of the context.
    """
    for name in _LAZY:
        sys.modules.setdefault(name, _LazyModule(name))
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


class _LazyModule(ModuleType):
    """A module that is imported when one of its attributes is used. `importlib.util.LazyLoader` would do so in the `import` statement."""

    def __getattr__(self, attribute: str) -> object:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), attribute)
