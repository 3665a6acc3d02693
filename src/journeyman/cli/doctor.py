"""`journeyman doctor`: one line for each thing that a run needs."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil

from journeyman.cli.say import say
from journeyman.config import CONFIG_NAME, EMBEDDED, EvaluateConfig, load_config
from journeyman.errors import JourneymanError

_CPU_ENGINE = (
    "it trains, but the serving engine is built without CUDA, so evaluation and serving run on the processor: install "
    "xllamacpp's wheel for CUDA (pip install --force-reinstall xllamacpp --index-url with the address in its README), "
    "or serve with your own server ([evaluate.server])"
)


def examine() -> bool:
    """Prints what was found; False if something is missing."""
    good = True
    for name, look in (
        ("processor", _processor),
        ("gpu", _gpu),
        ("cluster", _cluster),
        ("memory", lambda: f"{psutil.virtual_memory().available / 1e9:.1f} GB free"),
        ("disk", lambda: f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB free here"),
        ("base model", _base),
        ("engine", _engine),
        *([("llama-server", _llama_server)] if _has_own_server() else []),
        ("sandbox", _sandbox),
        ("checks", _checks),
        ("log formats", _formats),
        ("secrets", _secrets),
    ):
        good &= _line(name, look)
    return good


def _line(name: str, look: Callable[[], str]) -> bool:
    try:
        say(f"ok       {name:<11} {look()}")
        return True
    except (JourneymanError, ImportError) as error:
        say(f"missing  {name:<11} {error}")
        return False


def _processor() -> str:
    from journeyman.training.hardware import compute_dtype, matrix_gflops, use_threads

    threads, dtype = use_threads(None), compute_dtype("auto")
    precision = str(dtype).removeprefix("torch.")
    return f"{threads} cores, trains in {precision} at {matrix_gflops(dtype):.0f} GFLOP/s"


def _gpu() -> str:
    from journeyman.inference.engines import engine_sees_gpu
    from journeyman.training.devices import survey

    found = survey()
    if found.problem and not found.gpus:
        raise JourneymanError(found.problem, found.remedy)
    if not found.gpus:
        return "none; training and serving run on the processor"
    said = [f"cuda:{one.index} {one.line()}" for one in found.gpus]
    said += [f"{found.problem}. {found.remedy}"] if found.problem else []
    if not engine_sees_gpu():
        said.append(_CPU_ENGINE)
    return "; ".join(said)


def _cluster() -> str:
    """Whether --ray could work. Looks up the version without importing Ray, and asks no cluster."""
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return "Ray is not installed; only --ray needs it: pip install 'journeyman[ray]'"
    return f"Ray {version}, for --ray; without it, runs use this machine alone"


def _base() -> str:
    from journeyman.models.opening import find_base

    return str(find_base(EMBEDDED, Path()))


def _engine() -> str:
    from journeyman.inference.engines import engine_of

    engine = engine_of(EvaluateConfig(), Path())
    return f"{engine.line()}, library {engine.build['library'][:12]}…, {' '.join(engine.cpu_features)}"


def _has_own_server() -> bool:
    """Whether a config file in this folder names one, or cannot be read."""
    try:
        if not Path(CONFIG_NAME).is_file():
            return False
        config = load_config(Path(CONFIG_NAME))
        return bool(config.serve.llama_server or config.evaluate.llama_server)
    except JourneymanError:
        return True


def _llama_server() -> str:
    from journeyman.api.engine_choice import llama_server_of
    from journeyman.inference.engines import evaluated_server, identity_now

    config = load_config(Path(CONFIG_NAME))
    evaluate = config.evaluate
    named = [evaluated_server(evaluate, Path()), llama_server_of(config.serve, Path())]
    shown = []
    for program in dict.fromkeys(one for one in named if one is not None):
        engine = identity_now(evaluate.context, evaluate.parallel, evaluate.threads, program)
        shown.append(f"{program}: {engine.line()}, {engine.processor or 'no GPU'}")
    return "; ".join(shown)


def _sandbox() -> str:
    from journeyman.scoring.sandbox import run_sources, sandbox_of

    result = run_sources([("nothing", "pass")])
    if result.passed is None:
        problem = result.reason.sentence() if result.reason else "no sandbox"
        raise JourneymanError(problem, "Checks that run code stay unscored; see evaluate.unsafe_exec")
    return f"code written by a model runs without network or files, behind {sandbox_of().description}"


def _formats() -> str:
    from journeyman.sources.reader import FORMATS

    return ", ".join(FORMATS)


def _secrets() -> str:
    from journeyman.redaction.redactor import Redactor

    if not Redactor().find("password = 'correct-horse-1'"):
        raise JourneymanError("the scanner misses a known secret", "Reinstall kingfisher-secret-scanner")
    return "found by the rules of kingfisher and of journeyman, along with personal data"


def _checks() -> str:
    from journeyman.scoring.checks import check_table

    return ", ".join(check_table())
