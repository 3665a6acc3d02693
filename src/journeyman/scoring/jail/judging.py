"""The judge's process: runs a row's tests, or contains the code that a model's tests exercise; it alone decides.

The other process can use only the objects that were passed to it: their public attributes, calls and operators.
"""

import builtins
import io
import json
import linecache
import os
import random
import sys
import threading
import types

import handles
from peer import Peer
from performing import OPS, signature
from values import decode

NAMED = ("__name__", "__qualname__", "__module__", "__doc__")
INSPECTED = (
    "getsource", "getsourcelines", "getdoc", "isfunction", "isclass", "ismethod", "iscoroutinefunction",
    "isgeneratorfunction", "isasyncgenfunction", "isgenerator", "isabstract", "isbuiltin", "getfullargspec",
)  # fmt: skip
CLOSED = (
    types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.CodeType, types.FrameType, types.ModuleType,
    types.TracebackType, types.CoroutineType, types.AsyncGeneratorType, types.GeneratorType,
)  # fmt: skip


def main(readable, writable, report):
    verdict = JudgeReport(report)
    try:
        job = json.load(io.TextIOWrapper(io.FileIO(0, closefd=False), "utf-8"))
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.write(report, b'{"begun": true}\n')
        judge = Judging(readable, writable, verdict, shows_names=job["do"] != "catch")
        {"run": run, "test": test, "catch": catch}[job["do"]](judge, job)
        judge.ask("ping")
    except handles.Undecidable as error:
        verdict.give(None, "not_over_pipe", str(error))
    except BaseException as error:
        verdict.give(False, "raised", told(error))
    verdict.give(True)


def run(judge, job):
    """Passes if the sources end without an error, as reported by the answer's process."""
    judge.ask("load", *((name, source) for name, source in job["sources"]))


def test(judge, job):
    """Passes if the tests end without an error in this process."""
    judge.ask("load", ("answer", job["answer"]))
    if "inspect" in job["tests"] or "seed" in job["tests"]:
        judge.patch()
    judge.open_names(job["tests"])
    execute(job["tests"], "tests", judge.namespace)


def catch(judge, job):
    """Passes if the answer's tests end without an error on the code in this process."""
    execute(job["code"], "code", judge.namespace)
    names = [(name, value) for name, value in judge.namespace.items() if not name.startswith("__")]
    if not isinstance(judge.ask("tests", names, job["tests"]), int):
        raise AssertionError("the tests did not end")


def execute(source, name, namespace):
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec", dont_inherit=True), namespace)


def told(error):
    """The last line of the error's traceback."""
    try:
        lines = [line for line in str(error).splitlines() if line.strip()]
    except BaseException:
        lines = []
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__


class JudgeReport:
    """Reports the outcome. Only the first report counts; this process exits right after it."""

    def __init__(self, report):
        self.report, self.write, self.leave, self.dump = report, os.write, os._exit, json.dumps

    def give(self, passed, code="", detail=""):
        """`code` says why `passed` is not True, in this process's own words; `detail` may quote the answer."""
        detail = detail[:500].encode("utf-8", "backslashreplace").decode()
        self.write(self.report, self.dump({"passed": passed, "code": code, "detail": detail}).encode() + b"\n")
        self.leave(0)


class Judging(Peer):
    def __init__(self, readable, writable, verdict, shows_names):
        super().__init__(readable, writable, 0, self.lost)
        self.verdict, self.shows_names, self.guarded = verdict, shows_names, True
        self.namespace = {"__name__": "tests", "__builtins__": builtins}
        self.given, self.environment = {}, dict(os.environ)
        self.own = {name: getattr(sys, name) for name in ("stdout", "stderr", "stdin")}, builtins.input
        handles.PEERS.append(self)

    def lost(self, why):
        """`why`: how the answer's process broke the protocol; "" if it has ended."""
        if why:
            self.verdict.give(False, "broke_protocol", f"the answer's process broke the protocol: {why}")
        self.verdict.give(False, "gone")

    def patch(self):
        """Makes a random seed apply to both processes, and `inspect` look at objects in their own process."""
        seed = random.seed

        def seed_both(*args, **kwargs):
            seed(*args, **kwargs)
            self.ask("seed", *args, **kwargs)

        random.seed = seed_both
        import inspect

        for name in INSPECTED:
            setattr(inspect, name, self.there(name, getattr(inspect, name)))

    def there(self, name, here):
        def look(thing, *args):
            return self.ask("inspect", name, thing, *args) if handles.remote(thing) else here(thing, *args)

        return look

    def open_names(self, tests):
        """Makes the answer's names available to the tests. A builtin is not replaced by an answer's name, unless that
        name is the only one that the tests use from the answer: then it is what they test."""
        self.naming = True
        found = dict(self.ask("names"))
        self.naming = False
        used = used_names(tests)
        about = {name for name in found if name in used}
        if any(not hasattr(builtins, name) for name in about):
            found = {name: value for name, value in found.items() if not hasattr(builtins, name)}
        self.given = found
        self.namespace.update({"type": handles.Type, **found} if "type" in used else found)
        # so that `import answer` works too
        sys.modules["answer"] = module = types.ModuleType("answer")
        vars(module).update(found)

    def perform(self, op, args, kwargs):
        if op in ("input", "stdin"):
            return getattr(self, op)(*args)
        if op == "run":
            return in_a_thread(args[0])
        if op == "signature" and self.shows_names:
            return signature(*args)
        if op in ("getattr", "setattr"):
            self.allow(op, *args)
        if op not in OPS:
            raise TypeError(f"{op} may not be asked of an object of the tests")
        return OPS[op](*args, **kwargs)

    def allow(self, op, thing, name, *_value):
        if type(name) is not str or isinstance(thing, CLOSED):
            open_to_it = op == "getattr" and self.shows_names and name in NAMED
            open_to_it |= isinstance(thing, types.GeneratorType) and name in ("send", "throw", "close")
        else:
            named = self.shows_names and name in NAMED
            data = name == "__dict__" and not isinstance(thing, type)
            open_to_it = not name.startswith("_") or (op == "getattr" and (named or data))
        if not open_to_it:
            raise AttributeError(f"{type(thing).__name__!r} object has no attribute {name!r}")

    def input(self, prompt):
        if builtins.input is self.own[1] and sys.stdin is self.own[0]["stdin"]:
            raise EOFError("EOF when reading a line")
        return builtins.input(prompt)

    def stdin(self, how, *size):
        if how not in ("read", "readline") or sys.stdin is self.own[0]["stdin"]:
            return ""
        return getattr(sys.stdin, how)(*size)

    def news(self):
        now = dict(os.environ)
        if now != self.environment:
            self.environment = now
            return now
        return None

    def hear(self, news):
        printed, changed = news
        for name, text in printed:
            if name in ("stdout", "stderr") and getattr(sys, name) is not self.own[0][name]:
                getattr(sys, name).write(str(text))
        for name, value in changed:
            value = decode(self, value)
            if name in self.given and self.namespace.get(name) is self.given[name]:
                self.namespace[name] = self.given[name] = value


def used_names(source):
    import ast

    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def in_a_thread(coroutine):
    """Runs a coroutine of the tests to its end, even if a loop is running in this thread."""
    import asyncio

    ended = []

    def target():
        try:
            ended.append((True, asyncio.run(coroutine)))
        except BaseException as error:
            ended.append((False, error))

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    done, value = ended[0]
    if not done:
        raise value
    return value
