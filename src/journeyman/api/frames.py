"""Flat rows as data frames. pandas and polars are optional: each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from journeyman.api.columns import Kind
from journeyman.errors import UsageError

_PANDAS: Mapping[Kind, str] = {"text": "string", "int": "Int64", "float": "Float64", "bool": "boolean"}
"""The types of pandas that know missing values."""


def pandas_frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Kind]) -> Any:
    """A pandas.DataFrame."""
    try:
        import pandas
    except ImportError as error:
        raise _missing("pandas") from error
    made = {
        name: pandas.array([row[name] for row in rows], dtype=_PANDAS[kind])
        for name, kind in columns.items()
    }  # fmt: skip
    return pandas.DataFrame(made)


def polars_frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Kind]) -> Any:
    """A polars.DataFrame."""
    try:
        import polars
    except ImportError as error:
        raise _missing("polars") from error
    types = {"text": polars.String, "int": polars.Int64, "float": polars.Float64, "bool": polars.Boolean}
    made = {name: [row[name] for row in rows] for name in columns}
    return polars.DataFrame(made, schema={name: types[kind] for name, kind in columns.items()})


def _missing(package: str) -> UsageError:
    return UsageError(
        f"{package} is not installed", f"Run: pip install {package}; or use .records(), which needs no package"
    )
