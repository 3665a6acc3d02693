"""The identity of the serving engine: its version, its build, and the settings that can change an answer.

A quantized model's answers depend on the kernels that compute them, so the identity is part of the evidence: an
upgraded engine makes an evaluation stale, and `journeyman serve` refuses to run an engine other than the evaluated one.
The processor legitimately differs between machines; it is recorded, and a difference is only a warning.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Setting = str | int | float | bool | None
UNKNOWN = ""


class EngineIdentity(BaseModel):
    """The identity that a serving engine reports."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="the engine and the package that provides it")
    version: str = Field(UNKNOWN, description="version of the package; '' if it is not known")
    build: dict[str, str] = Field({}, description="commit, compiler and target if reported; the library's SHA-256")
    settings: dict[str, Setting] = Field(
        {}, description="the engine's settings that can change an answer, including its defaults"
    )
    processor: str = Field(UNKNOWN, description="the processor's model")
    cpu_features: list[str] = Field([], description="instruction sets and compile options that the engine reports")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        """Manifests of version 0.5.0 and before contain only a name."""
        return {"name": given} if isinstance(given, str) else given

    @property
    def known(self) -> bool:
        """False if an older version recorded only a name, which cannot be compared."""
        return self.version != UNKNOWN

    def line(self) -> str:
        """For reports and model cards: "llama.cpp (xllamacpp) 2026.10"."""
        return f"{self.name} {self.version}".strip()

    def decisive(self) -> dict[str, str]:
        """The values that identify the engine, by name; part of an evaluation's fingerprint."""
        values: dict[str, Setting] = {"engine.name": self.name, "engine.version": self.version}
        values |= {f"engine.build.{key}": value for key, value in self.build.items()}
        values |= {f"engine.{key}": value for key, value in self.settings.items()}
        return {key: value if isinstance(value, str) else repr(value) for key, value in values.items()}

    def differences(self, other: EngineIdentity) -> list[str]:
        """How `other` differs as an engine, as "key: this, not that"; empty if it is the same."""
        return _differences(self.decisive(), other.decisive())

    def machine_differences(self, other: EngineIdentity) -> list[str]:
        """How the machines differ, as "key: this, not that"; what `other` does not say of its own is left out."""

        def machine(one: EngineIdentity) -> dict[str, str]:
            return {"processor": one.processor, "CPU features": " ".join(sorted(one.cpu_features))}

        theirs = {key: value for key, value in machine(other).items() if value}
        return _differences({key: value for key, value in machine(self).items() if key in theirs}, theirs)


def _differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    keys = [*one, *(key for key in other if key not in one)]
    return [
        f"{key}: {_short(one.get(key))}, not {_short(other.get(key))}" for key in keys if one.get(key) != other.get(key)
    ]


def _short(value: str | None) -> str:
    return "not known" if not value else f"{value[:12]}…" if len(value) == 64 else value[:200]
