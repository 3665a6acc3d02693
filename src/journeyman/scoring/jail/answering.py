"""The answer's process: loads foreign code and does what the judge's process asks. Nothing that it says is trusted."""

import builtins
import io
import linecache
import os
import random
import sys
import types

from peer import Peer
from performing import OPEN_OPS

MOST_PRINTED = 1 << 20


def main(readable, writable):
    answer = Answering(readable, writable)
    while True:
        what, payload, news = answer.receive()
        if what == "do":
            answer.serve(payload, news)


def left(_why):
    os._exit(0)


class Answering(Peer):
    def __init__(self, readable, writable):
        super().__init__(readable, writable, 1, left)
        self.module, self.shown, self.loop, self.printed = types.ModuleType("answer"), {}, None, 0
        self.out = {name: Printed() for name in ("stdout", "stderr")}
        for name, printed in self.out.items():
            stream = io.TextIOWrapper(io.BufferedWriter(printed), "utf-8", "replace", write_through=True)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        self.streams = {name: getattr(sys, name) for name in self.out}
        sys.stdin, builtins.input = Typed(self), lambda prompt="": self.ask("input", str(prompt))
        sys.modules["answer"] = self.module
        here = os.path.dirname(os.path.abspath(__file__))
        sys.path[:] = [path for path in sys.path if path != here]
        sys.argv = ["answer"]

    def ask(self, op, *args, **kwargs):
        if not self.open:
            raise RuntimeError("the tests are not waiting for this answer")
        return super().ask(op, *args, **kwargs)

    def perform(self, op, args, kwargs):
        if op in ("load", "tests", "names", "run", "seed", "ping"):
            return getattr(self, op)(*args)
        return OPEN_OPS[op](*args, **kwargs)

    def load(self, *sources):
        """Executes (name, source) pairs in the answer's module."""
        for name, source in sources:
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
            exec(compile(source, name, "exec", dont_inherit=True), self.module.__dict__)

    def names(self):
        self.shown = dict(self.public())
        return tuple(self.shown.items())

    def public(self):
        for name, value in list(vars(self.module).items()):
            if type(name) is str and not (name.startswith("__") and name.endswith("__")):
                yield name, value

    def tests(self, names, source):
        """Runs tests that a model wrote on the code of the other process; returns their number."""
        vars(self.module).update(dict(names))
        self.load(("answer", source))
        return run_all(dict(vars(self.module)))

    def run(self, coroutine):
        import asyncio

        if self.loop is None:
            self.loop = asyncio.new_event_loop()
        return self.loop.run_until_complete(coroutine)

    def seed(self, *args):
        random.seed(*args)

    def ping(self):
        return True

    def hear(self, news):
        if news:
            os.environ.clear()
            os.environ.update(news)

    def news(self):
        """The text printed, and the names that have been rebound since they were last reported."""
        printed = []
        for name, stream in self.streams.items():
            try:
                stream.flush()
            except (OSError, ValueError):
                continue  # closed by the answer
            if text := self.out[name].taken():
                self.printed += len(text)
                printed += [[name, text]] if self.printed <= MOST_PRINTED else []
        changed = []
        if self.shown:
            from values import encode

            for name, value in self.public():
                if name in self.shown and self.shown[name] is not value:
                    self.shown[name] = value
                    changed.append([name, encode(self, value)])
        return [printed, changed]


def run_all(names):
    count = 0
    for name, thing in names.items():
        if name.startswith("test") and callable(thing):
            thing()
            count += 1
        elif name.startswith("Test") and isinstance(thing, type):
            for method in [m for m in dir(thing) if m.startswith("test")]:
                getattr(thing(), method)()
                count += 1
    if not count:
        raise AssertionError("no test function found")
    return count


class Printed(io.RawIOBase):
    """Keeps written text until it is sent, up to the amount that the judge accepts."""

    def __init__(self):
        self.kept = bytearray()

    def writable(self):
        return True

    def write(self, data):
        if len(self.kept) < MOST_PRINTED:
            self.kept += data
        return len(data)

    def taken(self):
        text, self.kept = self.kept.decode("utf-8", "replace"), bytearray()
        return text


class Typed(io.TextIOBase):
    """Standard input: whatever the tests have replaced it with, else empty."""

    def __init__(self, peer):
        self.peer = peer

    def readable(self):
        return True

    def readline(self, *size):
        return self.peer.ask("stdin", "readline", *size)

    def read(self, *size):
        return self.peer.ask("stdin", "read", *size)
