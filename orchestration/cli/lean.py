"""Keep pandas out of commands that make no DataFrame: its import takes a fifth of an idle sync.

DuckDB 1.5 imports pandas at the first bound parameter, and pyarrow imports it at the first array made from a list. Both
work without pandas if it cannot be imported.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _NoPandas:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("This command makes no DataFrame.", name=name)


@contextmanager
def without_pandas() -> Iterator[None]:
    """Make `import pandas` fail within the context, unless pandas was imported before."""
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
