"""journeyman: a small local model that takes over where the evidence says it may.

The names below are the Python API (docs/python-api.md). They are loaded when they are first used, so that
`import journeyman` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from journeyman.api.checks import check
    from journeyman.api.creating import create
    from journeyman.api.opening import open
    from journeyman.api.results import Adapter, Bundle, Dataset, Decision, Evaluation, Logs, Plan
    from journeyman.api.rows import Rows
    from journeyman.api.run import Run
    from journeyman.api.serving import Reply, Server
    from journeyman.errors import Interrupted, JourneymanError

__version__ = "0.8.0"

_MODULES = {
    "Adapter": "api.results",
    "Bundle": "api.results",
    "Dataset": "api.results",
    "Decision": "api.results",
    "Evaluation": "api.results",
    "Interrupted": "errors",
    "JourneymanError": "errors",
    "Logs": "api.results",
    "Plan": "api.results",
    "Reply": "api.serving",
    "Rows": "api.rows",
    "Run": "api.run",
    "Server": "api.serving",
    "check": "api.checks",
    "create": "api.creating",
    "open": "api.opening",
}
"""Public name → the module that defines it."""

__all__ = [
    "Adapter",
    "Bundle",
    "Dataset",
    "Decision",
    "Evaluation",
    "Interrupted",
    "JourneymanError",
    "Logs",
    "Plan",
    "Reply",
    "Rows",
    "Run",
    "Server",
    "__version__",
    "check",
    "create",
    "open",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'journeyman' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"journeyman.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
