"""Which serving engine gave the answers: its version, its build, and the settings that can change an answer.

A quantized model's answers depend on the kernels that compute them. So the identity belongs to what was evaluated: an
upgraded engine makes an evaluation stale, and `journeyman serve` refuses to run another engine than the evaluated one.
The processor differs between machines for good reasons; it is recorded, and a difference is only a warning.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Setting = str | int | float | bool | None
UNKNOWN = ""


class EngineIdentity(BaseModel):
    """A serving engine as it reports itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="the engine and the package that brings it")
    version: str = Field(UNKNOWN, description="of the package; '' where it is not known")
    build: dict[str, str] = Field({}, description="commit, compiler and target as far as told; the library's SHA-256")
    settings: dict[str, Setting] = Field(
        {}, description="what the engine runs with, its own defaults included, where it can change an answer"
    )
    processor: str = Field(UNKNOWN, description="the processor's model")
    cpu_features: list[str] = Field([], description="instruction sets and compile options that the engine reports")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        """Manifests of version 0.5.0 and before hold a name and nothing else."""
        return {"name": given} if isinstance(given, str) else given

    @property
    def known(self) -> bool:
        """False for what an older version recorded: a name, which can be compared with nothing."""
        return self.version != UNKNOWN

    def line(self) -> str:
        """For reports and model cards: "llama.cpp (xllamacpp) 2026.10"."""
        return f"{self.name} {self.version}".strip()

    def decisive(self) -> dict[str, str]:
        """What makes it another engine, by name: belongs to the fingerprint of an evaluation."""
        values: dict[str, Setting] = {"engine.name": self.name, "engine.version": self.version}
        values |= {f"engine.build.{key}": value for key, value in self.build.items()}
        values |= {f"engine.{key}": value for key, value in self.settings.items()}
        return {key: value if isinstance(value, str) else repr(value) for key, value in values.items()}

    def differences(self, other: EngineIdentity) -> list[str]:
        """Where `other` is another engine, as "key: this, not that"; empty where it is the same."""
        return _differences(self.decisive(), other.decisive())

    def machine_differences(self, other: EngineIdentity) -> list[str]:
        """Where only the machine is another one."""

        def machine(one: EngineIdentity) -> dict[str, str]:
            return {"processor": one.processor, "CPU features": " ".join(sorted(one.cpu_features))}

        return _differences(machine(self), machine(other))


def _differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    keys = [*one, *(key for key in other if key not in one)]
    return [
        f"{key}: {_short(one.get(key))}, not {_short(other.get(key))}" for key in keys if one.get(key) != other.get(key)
    ]


def _short(value: str | None) -> str:
    return "not known" if not value else f"{value[:12]}…" if len(value) == 64 else value[:200]
