"""Calls in the source that start a program, run text as code, load objects, compile a template or a non-constant
pattern, or open a connection. Each must be listed here, with the reason why hostile bytes cannot get far through it.

docs/security.md says who may be hostile. A new call fails this test until someone has written down its reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "journeyman"

ACTS = re.compile(
    r"subprocess\.(?:Popen|run|call|check_call|check_output|getoutput|getstatusoutput)"
    r"|os\.(?:system|popen|fork|forkpty|startfile|posix_spawnp?|exec\w+|spawn\w+)|pty\.\w+"
    r"|asyncio\.(?:create_subprocess_exec|create_subprocess_shell)"
    r"|multiprocessing\.(?:\w+\.)?(?:\w*Process|\w*Context|\w*Pool|get_context)|concurrent\.futures\.ProcessPoolExecutor"
    r"|eval|exec|compile|__import__|input|builtins\.\w+|code\.\w+|codeop\.\w+|runpy\.\w+"
    r"|importlib\.(?:import_module|reload|util\.(?:spec_from_file_location|module_from_spec)|machinery\.\w+)"
    r"|(?:pickle|cPickle|dill|cloudpickle|marshal|shelve|joblib|jsonpickle|yaml)\.\w+"
    r"|torch\.(?:load|jit\.load|hub\.\w+|package\.\w+)|numpy\.(?:load|fromfile|loadtxt|genfromtxt)"
    r"|safetensors\.torch\.load|transformers\.\w+|datasets\.load_dataset"
    r"|jinja2\.(?:\w+\.)?(?:Template|Environment|NativeEnvironment|SandboxedEnvironment|ImmutableSandboxedEnvironment)"
    r"|ast\.(?:parse|literal_eval)|xml\.\w+(?:\.\w+)*|lxml\.\w+|tarfile\.\w+|zipfile\.\w+|shutil\.unpack_archive"
    r"|urllib\.request\.\w+|http\.client\.\w+|httpx\.(?:get|post|put|request|stream|Client|AsyncClient)|aiohttp\.(?:ClientSession|request)|requests\.\w+"
    r"|socket\.(?:socket|create_connection|create_server)|webbrowser\.\w+|ctypes\.(?:CDLL|cdll|PyDLL|pythonapi)"
    r"|tempfile\.mktemp"
)
METHODS = {"from_string", "compile_expression", "extractall", "unpack_archive", "load_module", "exec_module"}
PATTERNS = {"compile", "search", "match", "fullmatch", "findall", "finditer", "split", "sub", "subn"}

ALLOWED: dict[tuple[str, str], str] = {
    ("__init__.py", "importlib.import_module"): "modules of our own, from a table of constants",
    ("api/hosting.py", "socket.socket"): "asks the system for a free port",
    ("cli/ui.py", "webbrowser.open"): "a file of our own, which leads to our own port",
    ("cli/ui.py", "webbrowser.Error"): "the name of an error",
    ("child_process.py", "ctypes.CDLL"): "prctl: a child ends with its parent",
    ("cluster/head.py", "socket.create_connection"): "to the cluster that cluster.address names; sends nothing",
    ("cluster/last_words.py", "subprocess.Popen"): "our own module, which waits for this process to end",
    ("cluster/messages.py", "pickle.dumps"): "to and in our own workers, to which Ray sends pickled work as it is",
    ("cluster/messages.py", "pickle.loads"): "what our own workers return; who is in the cluster runs code there",
    ("curation/examine.py", "re.compile of a variable"): "curate.credit[].needs[].matches: the person's own toml",
    ("routing/conversations.py", "re.compile of a variable"): "the same",
    ("api/routing.py", "multiprocessing.get_context"): "our own module, which judges rows that were written",
    ("curation/cut.py", "ast.parse"): "whether an answer's last block parses; compiles to a tree, runs nothing",
    ("http_client.py", "httpx.Client"): "to the engine, on loopback, or to a URL of the user's own config file",
    ("http_client.py", "httpx.AsyncClient"): "the same, for coroutines",
    ("api/recording.py", "socket.socket"): "the name of a type",
    ("gateway/forwarding.py", "aiohttp.ClientSession"): "to the URL of record.upstream; redirects are not followed",
    ("gateway/roles.py", "re.compile of a variable"): "record.roles[].system: the person's own toml",
    ("config.py", "re.compile of a variable"): "the same, to refuse what is no pattern",
    ("inference/llama.py", "subprocess.Popen"): "the engine: our own module with files that the person named",
    ("inference/llama_server.py", "subprocess.Popen"): "the program that serve.llama_server names; no shell",
    ("inference/llama_server.py", "subprocess.run"): "the same, which prints what it is and ends",
    ("inference/llama_facts.py", "subprocess.run"): "the same module, which prints which engine it is and ends",
    ("monitoring/sending.py", "subprocess.Popen"): "the program that monitor.command names; no shell",
    ("models/family_names.py", "re.compile of a variable"): "our own table of families",
    ("models/known.py", "re.compile of a variable"): "our own table of bases",
    ("reasoning.py", "re.compile of a variable"): "our own markers, each through re.escape",
    ("rendering/any_of.py", "re.compile of a variable"): "the base's special tokens, each through re.escape",
    ("scoring/check_names.py", "ast.parse"): "the user's checks, to find a function's name; runs nothing",
    ("scoring/inside.py", "subprocess.Popen"): "the sandbox itself",
    ("scoring/jail/__main__.py", "os.fork"): "judge and answer, inside the sandbox",
    ("scoring/jail/answering.py", "compile"): "the answer, inside the sandbox: what it is for",
    ("scoring/jail/answering.py", "exec"): "the same",
    ("scoring/jail/judging.py", "ast.parse"): "the row's tests, inside the sandbox",
    ("scoring/jail/judging.py", "builtins.input"): "a stand-in that the answer's process asks for",
    ("scoring/jail/judging.py", "compile"): "the row's tests, inside the sandbox, in the process that judges",
    ("scoring/jail/judging.py", "exec"): "the same",
    ("scoring/jail/performing.py", "pickle.dumps"): "in the answer's process alone, which only does it to itself",
    ("scoring/jail/performing.py", "pickle.loads"): "the same",
    ("scoring/jail/seccomp.py", "ctypes.CDLL"): "system calls of the child that builds its own walls",
    ("scoring/jail/values.py", "__import__"): "modules of the standard library, in the sandbox: exceptions' classes",
    ("scoring/jail/walls.py", "ctypes.CDLL"): "system calls of the child that builds its own walls",
    ("scoring/jail/walls.py", "os.fork"): "the first process of the sandbox's own namespace",
    ("supervision/background.py", "subprocess.Popen"): "starts journeyman itself, with arguments that the user typed",
    ("serving/server.py", "socket.socket"): "the name of a type",
    ("ui/hosting.py", "socket.socket"): "the name of a type",
    ("serving/upstream.py", "aiohttp.ClientSession"): "to the engine, or to the URL of serve.engine_url",
    ("sources/files.py", "zipfile.BadZipFile"): "the name of an error",
    ("sources/files.py", "zipfile.ZipFile"): "log files read as streams; nothing is unpacked to the disk",
    ("sources/files.py", "zipfile.is_zipfile"): "the same",
    ("sources/sample.py", "zipfile.is_zipfile"): "the same",
    ("sources/session_files.py", "re.compile of a variable"): "our own table",
    ("models/conversion_process.py", "runpy.run_path"): "llama.cpp's script from an installed package",
    ("models/conversion_process.py", "transformers.AutoTokenizer"): "forbidden to run code of the folder",
    ("models/conversion_process.py", "transformers.AutoConfig"): "the same",
    ("models/conversion_process.py", "transformers.AutoModel"): "the same",
    ("models/converting.py", "subprocess.Popen"): "our own module, or llama-quantize on PATH; no shell",
    ("models/quantizing.py", "subprocess.run"): "llama-quantize on PATH; no shell",
    ("models/opening.py", "extractall"): "the wheel of that package; zipfile lets no name leave the folder",
    ("models/opening.py", "subprocess.run"): "pip or uv fetches the embedded model's package by its pinned name",
    ("models/opening.py", "zipfile.ZipFile"): "the same wheel",
    ("models/adapter_conversion.py", "ast.parse"): "a table of the installed converter; runs nothing",
    ("models/adapter_conversion.py", "subprocess.run"): "llama.cpp's scripts as installed; no code of a folder",
    ("models/transformers_model.py", "transformers.AutoConfig"): "offline, without code of the folder",
    ("models/transformers_model.py", "transformers.AutoModelForCausalLM"): "the same; reads safetensors only",
    ("models/transformers_model.py", "transformers.PreTrainedModel"): "the name of a type",
    ("models/transformers_model.py", "transformers.PretrainedConfig"): "the name of a type",
    ("models/transformers_model.py", "transformers.logging"): "sets what the library prints",
    ("models/gguf_file.py", "numpy.fromfile"): "bytes at a place of the file, no objects",
    ("models/safetensors_file.py", "numpy.fromfile"): "bytes at a place of the file, no objects",
    ("proposing/checks.py", "ast.parse"): "whether sampled answers parse; compiles to a tree, runs nothing",
    ("parallel.py", "concurrent.futures.ProcessPoolExecutor"): "our own workers; between them goes what we pickle",
    ("parallel.py", "multiprocessing.context.SpawnContext"): "the same",
    ("parallel.py", "multiprocessing.context.SpawnProcess"): "the same",
    ("redaction/secrets.py", "re.compile of a variable"): "our own table",
    ("rendering/answers.py", "re.compile of a variable"): "our own markers, each through re.escape",
    ("rendering/bounded_jinja.py", "from_string"): "the chat template, in jinja2's immutable sandbox, with limits",
    ("rendering/bounded_jinja.py", "jinja2.sandbox.ImmutableSandboxedEnvironment"): "the same",
    ("rendering/bounded_jinja.py", "jinja2.Template"): "the name of a type",
    ("rendering/bounded_jinja.py", "jinja2.nodes.Template"): "the same",
    ("rendering/template.py", "jinja2.Template"): "the same",
    ("rendering/byte_bpe.py", "re.compile of a variable"): "our own table of pre-tokenizers",
    ("rendering/sentencepiece_bpe.py", "re.compile of a variable"): "the base's characters, each through re.escape",
    ("reporting/html.py", "jinja2.Environment"): "our own templates with autoescape; rows are values in them",
    ("reporting/junit.py", "xml.etree.ElementTree.Element"): "writes XML, reads none",
    ("reporting/junit.py", "xml.etree.ElementTree.SubElement"): "the same",
    ("reporting/junit.py", "xml.etree.ElementTree.tostring"): "the same",
    ("scoring/bounded.py", "subprocess.Popen"): "our own child with limits; rows go through a pipe, as JSON",
    ("scoring/own_function.py", "runpy.run_path"): "the person's own check beside the toml, in bounded.py's child",
    ("scoring/python_parses.py", "ast.parse"): "runs in bounded.py's child; compiles to a tree, runs nothing",
    ("scoring/row_data.py", "ast.parse"): "the same",
    ("scoring/row_data.py", "re.compile of a variable"): "a row's pattern, in bounded.py's child",
    ("scoring/sandbox.py", "subprocess.run"): "tries whether bubblewrap works; no data go in",
    ("training/hardware.py", "ctypes.CDLL"): "malloc_trim of the C library",
    ("cluster/remote_engine.py", "safetensors.torch.load"): "adapter and state, from our own workers",
    ("training/calls.py", "safetensors.torch.load"): "tensors that rank 0 of the same run sends",
    ("training/processes.py", "socket.create_server"): "on loopback: where the ranks of a run find each other",
    ("training/processes.py", "subprocess.Popen"): "the ranks of a run: our own module",
    ("training/trial_steps.py", "subprocess.Popen"): "our own module; packs go through a pipe, as JSON",
    ("training/worker.py", "runpy.run_module"): "journeyman itself, with arguments that the user typed",
}  # fmt: skip


def calls(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Full name and line of each such function that a module calls or passes on."""
    names = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            full = _full_name(node, names)
            if full and ACTS.fullmatch(full):
                yield full, node.lineno
            elif isinstance(node, ast.Attribute) and node.attr in METHODS:
                yield node.attr, node.lineno
        if isinstance(node, ast.ImportFrom) and any(one.name == "*" for one in node.names):
            yield f"{node.module}.*", node.lineno
        if isinstance(node, ast.Call):
            full = _full_name(node.func, names) or ""
            module, _, function = full.rpartition(".")
            if module == "re" and function in PATTERNS and not (node.args and _constant(node.args[0])):
                yield "re.compile of a variable", node.lineno
            if full == "getattr" and isinstance(node.args[0], ast.Name) and names.get(node.args[0].id, "") in _MODULES:
                yield f"getattr of {names[node.args[0].id]}", node.lineno


_MODULES = {"os", "subprocess", "builtins", "importlib", "pickle", "socket", "ctypes"}


def _imported(tree: ast.Module) -> dict[str, str]:
    """Local name → the full name that it stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                top = one.name.partition(".")[0]
                names[one.asname or top] = one.name if one.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return names


def _full_name(node: ast.expr, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        outer = _full_name(node.value, names)
        return (
            f"{outer}.{node.attr}"
            if outer and (not isinstance(node.value, ast.Name) or node.value.id in names)
            else None
        )
    return None


def _constant(node: ast.expr) -> bool:
    """Whether an expression is constant text: a literal, a combination of literals, or a constant of the module."""
    if isinstance(node, ast.BinOp):
        return _constant(node.left) and _constant(node.right)
    if isinstance(node, ast.JoinedStr):
        return all(_constant(one.value if isinstance(one, ast.FormattedValue) else one) for one in node.values)
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Name) and re.fullmatch(r"_?[A-Z_]+", node.id) is not None
    )


def _found() -> dict[tuple[str, str], int]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for name, line in calls(ast.parse(path.read_text(encoding="utf-8"))):
            found[str(path.relative_to(SOURCE)), name] = line
    return found


def test_every_call_that_acts_has_its_reason() -> None:
    unknown = {f"{module}:{line} {name}" for (module, name), line in _found().items() if (module, name) not in ALLOWED}
    assert not unknown, "write down in ALLOWED why no hostile bytes get anywhere by it"


def test_no_reason_is_left_over() -> None:
    assert not ALLOWED.keys() - _found().keys()
    assert all(len(reason) >= 5 for reason in ALLOWED.values())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import subprocess as s\ns.run(['x'])", "subprocess.run"),
        ("from subprocess import Popen as P\nP('x')", "subprocess.Popen"),
        ("import subprocess\nmap(subprocess.check_output, x)", "subprocess.check_output"),
        ("import os\nos.system(x)", "os.system"),
        ("from os import execvp\nexecvp(x, y)", "os.execvp"),
        ("eval(x)", "eval"),
        ("f = exec", "exec"),
        ("import pickle\npickle.loads(x)", "pickle.loads"),
        ("import torch\ntorch.load(x)", "torch.load"),
        ("import numpy as np\nnp.load(x)", "numpy.load"),
        ("import yaml\nyaml.load(x)", "yaml.load"),
        ("from importlib import import_module\nimport_module(x)", "importlib.import_module"),
        ("import importlib.util\nimportlib.util.spec_from_file_location(x)", "importlib.util.spec_from_file_location"),
        ("from urllib.request import urlopen\nurlopen(x)", "urllib.request.urlopen"),
        ("import jinja2\njinja2.Template(x)", "jinja2.Template"),
        ("environment.from_string(x)", "from_string"),
        ("import re\nre.search(pattern, x)", "re.compile of a variable"),
        ("from re import compile as c\nc(f'{x}')", "re.compile of a variable"),
        ("import os\ngetattr(os, x)", "getattr of os"),
        ("from os import *", "os.*"),
        ("import ast\nast.literal_eval(x)", "ast.literal_eval"),
    ],
)
def test_the_walk_finds(source: str, name: str) -> None:
    assert name in {found for found, _ in calls(ast.parse(source))}


def test_the_walk_leaves_constants_alone() -> None:
    source = "import re\nre.compile('a' + 'b')\nre.search(_WORD, x)\nself.compile(x)\nmodel.eval()\nrow.run(x)"
    assert not list(calls(ast.parse(source)))
