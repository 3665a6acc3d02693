"""Makes GGUF files of a Hugging Face folder: with llama.cpp's converter, and with `llama-quantize` for the formats that
the converter does not write.

A file that was made once is used from then on, whichever version made it. It is in journeyman's cache, in a folder that
is named by the hash of the Hugging Face folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from journeyman.artifacts import disk_error, remove_leftovers, remove_quietly, sync
from journeyman.errors import DiskFull, InputError, Interrupted, UsageError
from journeyman.foreign import plain
from journeyman.locking import is_at_work, locked
from journeyman.model_files import parts_of
from journeyman.models.base import Base
from journeyman.models.caches import own_cache
from journeyman.models.llama_converter import converter_version, scripts_folder
from journeyman.models.opening import sizes_of
from journeyman.models.quantizing import QUANTIZED, QUANTIZER, quantizer
from journeyman.protocols import Reporter

_CONVERTED: Mapping[str, float] = {"F32": 4, "F16": 2, "BF16": 2, "Q8_0": 34 / 32}
"""Formats that the converter writes → bytes per parameter."""
_HEADER_BYTES = 32 << 20
_LOOK_EVERY_S = 0.2
_NAME_A_FILE = "name a .gguf file of this base in evaluate.quantizations"


def format_of(name: str) -> str | None:
    """The format that a name in evaluate.quantizations means, such as Q8_0; None if it is not one that can be made."""
    return name.upper() if name.upper() in (*_CONVERTED, *QUANTIZED) else None


def find_made(sha256: str, kind: str) -> Path | None:
    """The file in this format that was made of the folder with this hash; None if there is none."""
    return next(iter(sorted(_place(sha256).glob(f"*/*-{kind}.gguf"))), None)


def made_by(path: Path) -> str:
    """The programs that made a file, with their version; '' if it was not made here."""
    return path.parent.name if path.parent.parent.parent == _cache() else ""


def require_tools(kind: str) -> None:
    """Refuses a format that cannot be made on this machine.

    Raises:
        InputError: a program or package is missing.
    """
    scripts_folder()
    if kind not in _CONVERTED and quantizer() is None:
        raise InputError(
            f"evaluate.quantizations = {kind!r}: made by llama.cpp's {QUANTIZER} only, which is not on PATH",
            f"Install llama.cpp's programs, set evaluate.quantizations to {', '.join(_CONVERTED)}, or {_NAME_A_FILE}",
        )


def make(base: Base, kind: str, reporter: Reporter) -> Path:
    """Makes the file in this format, unless it is there.

    Raises:
        InputError: a program is missing, or cannot convert this model.
        DiskError: the file does not fit on the disk, or the cache cannot be written to.
        Interrupted: asked to stop; nothing is kept.
        UsageError: another journeyman is making a file of this base.
    """
    require_tools(kind)
    place = _place(base.sha256)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, place) from error
    try:
        with locked(place):
            remove_leftovers(place, below=False)
            return find_made(base.sha256, kind) or _Conversion(base, kind, place, reporter).made()
    except UsageError as error:
        if not is_at_work(place):
            raise
        raise UsageError(
            f"{place}: another journeyman is converting {base.peft.name}", "Wait for it or stop it"
        ) from error


def _place(sha256: str) -> Path:
    return _cache() / sha256


def _cache() -> Path:
    return own_cache().parent / "converted"


class _Conversion:
    """One file in the making. Everything unfinished is in a folder that `remove_leftovers` recognizes."""

    def __init__(self, base: Base, kind: str, place: Path, reporter: Reporter) -> None:
        self._base, self._kind, self._place, self._reporter = base, kind, place, reporter
        self._name = Path(base.peft.name).name
        self._scratch = place / f".conversion.{os.getpid()}.tmp"

    def made(self) -> Path:
        direct = self._kind in _CONVERTED
        needed = self._bytes(self._kind) + (0 if direct else self._bytes("BF16"))
        self._refuse_full_disk(needed)
        tools = converter_version() + ("" if direct else f" and {QUANTIZER}")
        final = self._place / tools / f"{self._name}-{self._kind}.gguf"
        self._reporter.say(
            f"making {self._kind} of {self._base.path} with {tools}: about {needed / 1e9:.2f} GB, in {self._place}"
        )
        try:
            self._scratch.mkdir()
            made = self._convert(self._kind) if direct else self._quantize(self._convert("auto"))
            sync(made)
            final.parent.mkdir(exist_ok=True)
            made.replace(final)
            sync(final.parent)
        except OSError as error:
            raise disk_error(error, self._place) from error
        finally:
            remove_quietly(self._scratch)
        return final

    def _bytes(self, kind: str) -> int:
        """An estimate from above: no format of llama-quantize is larger than Q8_0."""
        per_parameter = _CONVERTED.get(kind, _CONVERTED["Q8_0"])
        return int(sizes_of(self._base).parameters * per_parameter) + _HEADER_BYTES

    def _refuse_full_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self._place).free
        if needed > free:
            raise DiskFull(
                f"evaluate.quantizations: making {self._kind} of {self._base.path} needs {needed / 1e9:.2f} GB, and "
                f"{self._place} has {free / 1e9:.2f} GB free",
                "Free some space, or set XDG_CACHE_HOME to a folder on another disk",
            )

    def _convert(self, kind: str) -> Path:
        """Runs the converter on links to the files that belong to the model: the folder may contain more, such as code.

        Their folder has the model's name, because the converter writes it into the file.
        """
        links, out = self._scratch / self._name, self._scratch / "converted.gguf"
        links.mkdir()
        for part in parts_of(self._base.path):
            (links / part.name).symlink_to(part.resolve())
        data = self._base.tokenizer
        job = {
            "scripts": str(scripts_folder()), "folder": str(links), "out": str(out), "type": kind.lower(),
            "name": self._name, "split": data.split if data.kind == "gpt2" else "",
        }  # fmt: skip
        command = [sys.executable, "-P", "-m", "journeyman.models.conversion_process"]
        self._run(command, out, self._bytes("BF16" if kind == "auto" else kind), json.dumps(job) + "\n")
        return out

    def _quantize(self, source: Path) -> Path:
        out, program = self._scratch / "quantized.gguf", quantizer() or QUANTIZER
        self._run([program, str(source), str(out), self._kind], out, self._bytes(self._kind))
        return out

    def _run(self, command: Sequence[str], out: Path, size: int, told: str = "") -> None:
        """Runs a program until it ends, and reports how much of the file it has written."""
        self._reporter.begin(f"convert to {self._kind}", size, "bytes")
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, env=self._environment(),
            )  # fmt: skip
            assert process.stdin is not None
            try:
                with suppress(OSError):  # it may have ended already
                    process.stdin.write(told.encode())
                    process.stdin.flush()
                while process.poll() is None:
                    if self._reporter.stop_requested:
                        raise Interrupted(
                            "stopped while the base was converted", "Run it again; it starts from the beginning"
                        )
                    self._reporter.advance(min(size, out.stat().st_size) if out.exists() else 0)
                    time.sleep(_LOOK_EVERY_S)
            finally:
                process.kill()
                process.wait()
                with suppress(OSError):
                    process.stdin.close()
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
        if process.returncode or not out.is_file():
            self._refuse(Path(command[0]).name, process.returncode, said)

    def _refuse(self, program: str, code: int, said: Sequence[str]) -> None:
        tool = QUANTIZER if program == QUANTIZER else "llama.cpp's converter"
        how = f"was ended by signal {-code}" if code < 0 else "failed"
        why = f": {plain(said[-1], 300)}" if said else ""
        raise InputError(f"{self._base.path}: {tool} {how}{why}", f"{_NAME_A_FILE[0].upper()}{_NAME_A_FILE[1:]}")

    def _environment(self) -> dict[str, str]:
        """Without access to a hub: neither is anything downloaded, nor is code used that another program downloaded."""
        nowhere = str(self._scratch / "hub")
        return {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": nowhere,
            "HF_HUB_CACHE": nowhere,
            "USE_HUB_KERNELS": "0",
        }
