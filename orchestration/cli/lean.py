"""Commands without pandas, whose import takes a fifth of the time of a sync without changes.

DuckDB 1.5 imports pandas at the first bound parameter, and pyarrow imports it at the first array made from a list. Both
work without pandas if the import fails.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _NoPandas:
    """Import finder that makes the import of pandas fail."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("This command does not use pandas.", name=name)


@contextmanager
def without_pandas() -> Iterator[None]:
    """Make `import pandas` fail while the context lasts, unless pandas is already imported."""
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
