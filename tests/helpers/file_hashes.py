"""Compares what stages wrote, file by file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import zstandard

from journeyman.artifacts import sha256_of


def file_hashes(folder: Path) -> dict[str, str]:
    """Of all files; of compressed rows as they are without compression, because a frame ends at each commit."""
    return {
        str(path.relative_to(folder)): _unpacked(path) if path.suffix == ".zst" else sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _unpacked(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as rows:
        while part := rows.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
