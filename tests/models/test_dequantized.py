"""Blocks of every quantization that is read have the values that llama.cpp's own functions give them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from quantized import KINDS, PLAIN, random_matrix

ROWS, COLUMNS = 8, 1024
_GGML = """
import ctypes, sys
import numpy as np
import xllamacpp
library = ctypes.CDLL(sys.modules["xllamacpp.xllamacpp"].__file__)
raw = np.fromfile(sys.argv[2], np.uint8)
out = np.zeros(int(sys.argv[3]), np.float32)
function = getattr(library, "dequantize_row_" + sys.argv[1])
function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
function(raw.ctypes.data, out.ctypes.data, out.size)
out.tofile(sys.argv[4])
"""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PLAIN], ids=lambda kind: kind.name)
def test_values_are_those_of_llama_cpp(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    raw = random_matrix(np.random.default_rng(1), ROWS, COLUMNS, kind)
    raw.tofile(tmp_path / "raw")
    name = kind.name.lower().replace("_k", "_K")
    # In a child process: the engine's library brings its own OpenMP.
    command = [sys.executable, "-c", _GGML, name, tmp_path / "raw", str(ROWS * COLUMNS), tmp_path / "values"]
    subprocess.run(command, check=True, timeout=60)
    theirs = np.fromfile(tmp_path / "values", np.float32).reshape(ROWS, COLUMNS)
    ours = dequantize(raw, kind)
    assert np.abs(theirs).max() > 0
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=0)
