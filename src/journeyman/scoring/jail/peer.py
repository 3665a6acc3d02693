"""One end of the pipe between two processes: calls, replies, and calls back while a call is being answered.

Each message is a length followed by JSON: [what, payload, news]. Exactly one side runs at a time; the news (changed
containers, handles that are no longer needed, printed text) brings the other side up to date whenever it continues.
"""

import contextlib
import json
import os
import sys
import threading
from weakref import WeakValueDictionary

from links import Links
from values import decode, encode

MOST_BYTES = 256 << 20
DEEP = 6000


@contextlib.contextmanager
def deep():
    """Raises the recursion limit, so that values may be nested as deeply as Python's own functions can handle."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEEP))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class Peer:
    """`number` distinguishes the two ends (0 or 1). `gone` is called, and does not return, if the other end has ended
    or breaks the protocol. `perform(op, args, kwargs)` does what the other side requests."""

    def __init__(self, readable, writable, number, gone):
        self.readable, self.writable, self.gone = readable, writable, gone
        self.links = Links(self, number)
        self.lock = threading.RLock()
        self.exported, self.numbers, self.last = {}, {}, 0
        self.proxies, self.mirrors, self.freed = WeakValueDictionary(), {}, []
        self.naming = self.guarded = False
        self.open = 0  # how many calls of the other side are being answered

    def perform(self, op, args, kwargs):
        raise NotImplementedError

    def news(self):
        return []

    def hear(self, news):
        """Processes the other side's own news."""

    def ask(self, op, *args, **kwargs):
        """Has the other side perform an operation; raises whatever was raised there."""
        with self.lock:
            with deep():
                payload = [op, [encode(self, a) for a in args], [[k, encode(self, v)] for k, v in kwargs.items()]]
            self.send("do", payload)
            while True:
                what, payload, news = self.receive()
                if what == "do":
                    self.serve(payload, news)
                    continue
                value = self.take(payload, news)
                if what == "ok":
                    return value
                raise value if isinstance(value, BaseException) else self.gone("it raised what is no exception")

    def serve(self, payload, news):
        op, args, kwargs = self.take(payload, news, self.asked)
        self.open += 1
        try:
            self.reply("ok", self.perform(op, args, kwargs))
        except BaseException as error:
            self.reply("no", error)
        finally:
            self.open -= 1

    def reply(self, what, value):
        with self.lock:
            try:
                with deep():
                    payload = encode(self, value)
            except (RecursionError, MemoryError) as error:
                what, payload = "no", encode(self, type(error)("the value is too deep or too large to be handed over"))
            self.send(what, payload)

    def asked(self, payload):
        op, args, kwargs = payload
        return op, [decode(self, a) for a in args], {str(k): decode(self, v) for k, v in kwargs}

    def take(self, payload, news, read=None):
        try:
            with deep():
                value = read(payload) if read else decode(self, payload)
                self.updated(news)
        except (
            RecursionError,
            MemoryError,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            return self.gone(f"it sent what cannot be read ({type(error).__name__})")
        return value

    def updated(self, news):
        changed, dropped, freed, own = news
        self.links.update(changed, dropped)
        for number, times in freed:
            held = self.exported.get(number)
            if held is not None:
                held[1] -= times
                if held[1] <= 0:
                    del self.exported[number], self.numbers[id(held[0])]
        self.hear(own)

    def send(self, what, payload):
        freed, self.freed = self.freed, []
        with deep():
            news = [*self.links.changes(), freed, self.news()]
            text = json.dumps([what, payload, news]).encode()
        data = memoryview(len(text).to_bytes(8, "little") + text)
        try:
            while data:
                data = data[os.write(self.writable, data) :]
        except OSError:
            self.gone("")

    def receive(self):
        size = int.from_bytes(self.read(8), "little")
        if size > MOST_BYTES:
            self.gone("it sent too much")
        try:
            with deep():
                what, payload, news = json.loads(self.read(size))
        except (RecursionError, MemoryError, ValueError):
            return self.gone("it sent what is no message")
        return what, payload, news

    def read(self, size):
        parts = []
        while size:
            part = os.read(self.readable, min(size, 1 << 20))
            if not part:
                self.gone("")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def export(self, thing):
        """A number by which the other side can refer to the object, counted so that the object can be released."""
        number = self.numbers.get(id(thing))
        if number is None:
            self.last += 1
            number = self.numbers[id(thing)] = self.last
            self.exported[number] = [thing, 0]
        self.exported[number][1] += 1
        return number
