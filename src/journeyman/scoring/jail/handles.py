"""Handles for objects of the other side: every attribute access and operator goes over the pipe.

What the other side reports about its own objects cannot be verified. When such an object meets plain data, this side
decides: the object equals plain data only through the value that it carries, has no order relative to plain data, and
the result of an operator on both is neither a number nor a truth value.
"""

import operator
import types
from numbers import Number

BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
ORDER = ("lt", "le", "gt", "ge")
UNARY = ("neg", "pos", "invert")
TO_PLAIN = ("abs", "int", "float", "complex", "index", "round", "trunc", "floor", "ceil", "bool")
ASKED = (
    *("call", "len", "iter", "next", "reversed", "contains", "getitem", "setitem", "delitem", "str", "repr", "format"),
    *("bytes", "hash", "dir", "enter", "exit", "copy", "deepcopy", "instancecheck", "subclasscheck", "get", "set"),
    *("fspath", "anext", "aiter"),
)
OPERATORS = [
    f"__{name}__"
    for name in (
        *BINARY, *(f"r{n}" for n in BINARY), *(f"i{n}" for n in BINARY), *UNARY, *TO_PLAIN, *ASKED, *ORDER, "divmod",
    )
    if name not in ("get", "set", "hash", "instancecheck", "subclasscheck", "aiter", "anext")
]  # fmt: skip
INNER = {"_peer", "_number", "_shape", "_times", "_mixed", "_hash"} | {
    *("__copy__", "__deepcopy__", "__reduce_ex__", "__mro_entries__"),  # looked up as attributes by their users
}


class Undecidable(BaseException):
    """The tests need something that cannot work over a pipe; this says nothing about the answer."""


class Handle:
    """An object of the other side."""

    __slots__ = ("__weakref__", "_hash", "_mixed", "_number", "_peer", "_shape", "_times")

    def __init__(self, peer, number, shape):
        put = object.__setattr__
        given = {"_peer": peer, "_number": number, "_shape": shape, "_times": 0, "_mixed": False, "_hash": None}
        for name, value in given.items():
            put(self, name, value)

    def __getattribute__(self, name):
        if name in INNER:
            return object.__getattribute__(self, name)
        if name == "__class__" and self._shape in ("c", "f"):
            return type if self._shape == "c" else types.FunctionType
        if name == "__signature__":
            return signature(self)
        return self._peer.ask("getattr", self, name)

    def __setattr__(self, name, value):
        self._peer.ask("setattr", self, name, value)

    def __delattr__(self, name):
        self._peer.ask("delattr", self, name)

    def __del__(self):
        self._peer.freed.append([self._number, self._times])

    def __eq__(self, other):
        if other is self:
            return True
        if remote(other):
            return ask_plain(self, "__eq__", other)
        if self._shape == "w":
            return self._peer.ask("whole", self) == other
        return NotImplemented

    def __ne__(self, other):
        if remote(other) and other is not self:
            return ask_plain(self, "__ne__", other)
        equal = Handle.__eq__(self, other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self):
        return self._peer.ask("__hash__", self) if self._hash is None else self._hash

    def __reduce_ex__(self, protocol):
        return revive, (self._peer.ask("pickle", self, protocol),)

    def __mro_entries__(self, bases):
        raise Undecidable("a class of the tests cannot inherit from one of the answer's")

    def __copy__(self):
        return self._peer.ask("__copy__", self)

    def __deepcopy__(self, memo):
        return self._peer.ask("__deepcopy__", self)

    async def __aenter__(self):
        return self._peer.ask("__aenter__", self)

    async def __aexit__(self, kind, error, trace):
        return self._peer.ask("__aexit__", self, kind, error, None)

    def __exit__(self, kind, error, trace):
        return self._peer.ask("__exit__", self, kind, error, None)

    def __aiter__(self):
        return self._peer.ask("__aiter__", self)

    async def __anext__(self):
        return self._peer.ask("__anext__", self)


class TypeOf(type):
    """Makes `type(x)` return the class of x if x is an object of the other side."""

    def __call__(cls, *args, **kwargs):
        if cls is Type and len(args) == 1 and not kwargs:
            return peer_of(args[0]).ask("getattr", args[0], "__class__") if boxed(args[0]) else type(args[0])
        return type(*args, **kwargs) if cls is Type else super().__call__(*args, **kwargs)

    def __instancecheck__(cls, thing):
        return isinstance(thing, type) if cls is Type else super().__instancecheck__(thing)


class Type(type, metaclass=TypeOf):
    """`type`, as tests use it."""


def boxed(thing):
    return remote(thing) and not isinstance(thing, BaseException)


def revive(data):
    return PEERS[0].ask("unpickle", data)


PEERS: list = []


def remote(thing):
    return type(thing) is Handle or type(type(thing)) is Mirror


def ask_plain(handle, op, *args):
    """The result of comparing two objects of the other side; if it is not a truth value, it stays an object."""
    return peer_of(handle).ask(op, handle, *args)


def peer_of(thing):
    return thing._peer if type(thing) is Handle else type(thing)._peer


def asks(op):
    def ask(self, *args, **kwargs):
        return peer_of(self).ask(op, self, *args, **kwargs)

    return ask


def makes_plain(op):
    def ask(self, *args):
        if type(self) is Handle and self._mixed:
            raise TypeError("what an operator made of plain data and an object of the answer's is no number, no truth")
        return peer_of(self).ask(op, self, *args)

    return ask


def orders(op):
    def ask(self, other):
        if remote(other):
            return ask_plain(self, op, other)
        if type(self) is Handle and self._shape == "w":
            return getattr(operator, op)(self._peer.ask("whole", self), other)
        return NotImplemented

    return ask


def combines(op):
    def ask(self, other, *more):
        made = peer_of(self).ask(op, self, other, *more)
        deciding = not remote(other) and isinstance(other, (Number, set, frozenset))
        if made is NotImplemented:
            return made
        if not deciding and not any(type(thing) is Handle and thing._mixed for thing in (self, other)):
            return made
        if type(made) is Handle:
            if not (made is self and op.startswith("__i")):
                object.__setattr__(made, "_mixed", True)
            return made
        if remote(made):
            return made
        raise TypeError(f"{op} of plain data and an object of the answer's own class gives plain data: not believed")

    return ask


for _names, _make in (
    ((*BINARY, *(f"r{n}" for n in BINARY), *(f"i{n}" for n in BINARY)), combines),
    (ORDER, orders),
    (TO_PLAIN, makes_plain),
    ((*UNARY, "divmod"), asks),
    (tuple(n for n in ASKED if f"__{n}__" not in vars(Handle) and n not in ("get", "set")), asks),
):
    for _name in _names:
        setattr(Handle, f"__{_name}__", _make(f"__{_name}__"))


def handle(peer, number, shape, known_hash):
    """The only handle of that object; a coroutine becomes one of this side that runs to its end at once."""
    found = peer.proxies.get(number)
    if found is None:
        found = peer.proxies[number] = Handle(peer, number, shape)
    object.__setattr__(found, "_times", found._times + 1)
    if known_hash is not None:  # needed for keys: no request may be sent while a message is being read
        object.__setattr__(found, "_hash", int(known_hash))
    if shape == "a":

        async def run():
            return peer.ask("run", found)

        return run()
    return found


def signature(function):
    import inspect

    found = function._peer.ask("signature", function)
    if found is None:
        raise AttributeError("__signature__")
    parameters, returned = found
    empty = inspect.Parameter.empty
    made = [
        inspect.Parameter(name, kind, default=default[0] if default else empty, annotation=hint[0] if hint else empty)
        for name, kind, default, hint in parameters
    ]
    return inspect.Signature(made, return_annotation=returned[0] if returned else empty)


class Mirror(type):
    """The metaclass of classes that represent the other side's: exceptions, and subclasses of plain types."""

    def __getattr__(cls, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return cls._peer.ask("getattr", cls, name)


def mirror_error(peer, number, name, bases):
    from values import decode

    known = peer.mirrors.get(number)
    if known is None:
        bases = tuple(decode(peer, base) for base in bases)
        inside = {"__module__": "answer", "_peer": peer, "_number": number, "__getattr__": of_twin, "__str__": text_of}
        known = peer.mirrors[number] = Mirror(str(name), bases, inside)
    return known


def twin(error):
    """The object that it represents; an exception created on this side is created again on the other."""
    found = error.__dict__.get("_twin")
    if found is None:
        found = error.__dict__["_twin"] = type(error)._peer.ask("make", type(error), *error.args)
    return found


def of_twin(self, name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(self)._peer.ask("getattr", twin(self), name)


def text_of(self):
    return type(self)._peer.ask("__str__", twin(self))


def mirror_value(peer, number, kind_number, name, whole, own):
    from values import decode

    known = peer.mirrors.get(("value", number))
    if known is None:
        whole = decode(peer, whole)
        base = type(whole)
        kind = peer.mirrors.get(("kind", kind_number))
        if kind is None:
            inside = {"__module__": "answer", "_peer": peer, "_number": kind_number, "__getattr__": of_value}
            inside |= {op: OVERRIDES[op] for op in own if op in OVERRIDES}
            kind = peer.mirrors["kind", kind_number] = Mirror(str(name), (base,), inside)
        known = peer.mirrors["value", number] = base.__new__(kind, whole)
        known.__dict__["_twin"] = handle(peer, number, "o", None)
    return known


OVERRIDES = {
    op: vars(Handle)[op] for op in OPERATORS if op in vars(Handle) and op[2:-2] not in (*ORDER, "bool", "call")
}
OVERRIDES |= {"__call__": vars(Handle)["__call__"]}


def of_value(self, name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(self)._peer.ask("getattr", self, name)


def returned(peer, v):
    """Sends an object of the other side back as itself."""
    kind = type(v)
    if kind is Handle:
        return ["y", v._number] if v._peer is peer else None
    if kind is Mirror:
        return ["y", v._number]
    if type(kind) is Mirror:
        found = v.__dict__.get("_twin")
        return ["y", found._number] if found is not None else ["n", kind._number, [_encode(peer, a) for a in v.args]]
    return None


def _encode(peer, v):
    from values import encode

    return encode(peer, v)
