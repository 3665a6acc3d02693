"""The license that a base names for itself, shown or not known."""

from __future__ import annotations

from pathlib import Path

import gguf

from conftest import write_tiny_gguf
from journeyman.models.license import license_of


def test_a_files_metadata_or_a_folders_card_names_the_license(tmp_path: Path) -> None:
    def licensed(writer: gguf.GGUFWriter) -> None:
        writer.add_license("apache-2.0\x1b[31m")

    assert license_of(write_tiny_gguf(tmp_path / "a.gguf", extend=licensed)) == "apache-2.0\\x1b[31m"
    assert license_of(write_tiny_gguf(tmp_path / "b.gguf")) is None
    folder = tmp_path / "folder"
    folder.mkdir()
    assert license_of(folder) is None
    for text, found in (
        ("---\nlanguage: en\nlicense: mit\n---\n# A model\n", "mit"),
        ('---\nlicense: "llama3.2"\n---\n', "llama3.2"),
        ("# A model\n---\nlicense: mit\n---\n", None),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("---\nlicense: <b>\n---\n", None),
    ):
        (folder / "README.md").write_text(text)
        assert license_of(folder) == found, text
