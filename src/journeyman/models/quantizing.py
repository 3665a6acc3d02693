"""llama.cpp's program llama-quantize, which writes the formats that neither its converter nor the package gguf does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from journeyman.errors import InputError
from journeyman.foreign import plain

QUANTIZER = "llama-quantize"
QUANTIZED = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M",
    "Q6_K", "IQ4_NL", "IQ4_XS",
)  # fmt: skip
"""Formats that it makes of a file with 16 bits. Those that need statistics (an imatrix) are left out."""
_TIMEOUT_S = 6 * 3600


def quantizer() -> str | None:
    """The program's path; None if it is not on PATH."""
    return shutil.which(QUANTIZER)


def quantize_file(source: Path, kind: str, out: Path) -> None:
    """Writes a GGUF file in another format; matrices that are quantized already may be quantized again.

    Raises:
        InputError: the program is not there, or fails.
    """
    program = quantizer()
    if program is None:
        raise InputError(
            f"{kind}: only llama.cpp's {QUANTIZER} writes it, which is not on PATH", "Install llama.cpp's programs"
        )
    command = [program, "--allow-requantize", str(source), str(out), kind]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{QUANTIZER} did not end in {_TIMEOUT_S} s", "Choose another format") from error
    if ended.returncode or not out.is_file():
        said = (ended.stderr or ended.stdout).strip().splitlines()
        why = f": {plain(said[-1], 300)}" if said else ""
        raise InputError(f"{source}: {QUANTIZER} failed{why}", "Choose another format")
