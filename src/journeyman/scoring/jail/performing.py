"""The operations that one side performs for the other, by name."""

import copy
import operator

from values import WHOLE

OPS = {
    f"__{name}__": getattr(operator, f"__{name}__")
    for name in (
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift"),
        *("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul", "iand", "ior", "ixor"),
        *("ilshift", "irshift", "neg", "pos", "invert", "abs", "index", "eq", "ne", "lt", "le", "gt", "ge"),
        *("getitem", "setitem", "delitem", "contains"),
    )
}
OPS |= {f"__r{name}__": lambda a, b, do=OPS[f"__{name}__"]: do(b, a) for name in (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift",
)}  # fmt: skip
OPS |= {
    "__call__": lambda thing, *args, **kwargs: thing(*args, **kwargs), "__len__": len, "__iter__": iter,
    "__next__": next, "__reversed__": reversed, "__str__": str, "__repr__": repr, "__format__": format,
    "__hash__": hash, "__bool__": bool, "__int__": int, "__float__": float, "__complex__": complex, "__round__": round,
    "__bytes__": bytes, "__divmod__": divmod, "__aiter__": aiter, "__anext__": anext,
    "getattr": getattr, "setattr": setattr, "__copy__": copy.copy, "__deepcopy__": copy.deepcopy,
}  # fmt: skip
for _name in ("enter", "aenter", "trunc", "floor", "ceil", "fspath"):
    OPS[f"__{_name}__"] = lambda thing, name=f"__{_name}__": getattr(type(thing), name)(thing)
for _name in ("exit", "aexit"):
    OPS[f"__{_name}__"] = lambda thing, kind, error, _trace, name=f"__{_name}__": getattr(type(thing), name)(
        thing, kind, error, None
    )


def make(kind, *args):
    """Creates an exception as an object, without raising it."""
    return Held(kind(*args))


class Held:
    """Wraps an exception so that it is not sent as a copy."""

    def __init__(self, error):
        self.__dict__["error"] = error

    def __getattr__(self, name):
        return getattr(self.__dict__["error"], name)

    def __str__(self):
        return str(self.__dict__["error"])


def whole(thing):
    base = next(base for base in WHOLE if isinstance(thing, base))
    return WHOLE[base](thing)


def signature(function):
    """A function's parameters as plain data; None if it has no signature."""
    import inspect

    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    empty = inspect.Parameter.empty

    def shown(value):
        return () if value is empty else (value,)

    parameters = tuple((p.name, int(p.kind), shown(p.default), shown(p.annotation)) for p in found.parameters.values())
    return parameters, shown(found.return_annotation)


def pickled(thing, protocol):
    import pickle

    return pickle.dumps(thing, protocol)


def unpickled(data):
    import pickle

    return pickle.loads(data)


def inspected(name, *args):
    import inspect

    return getattr(inspect, name)(*args)


OPEN_OPS = OPS | {
    "delattr": delattr, "__dir__": dir, "__instancecheck__": lambda kind, thing: isinstance(thing, kind),
    "__subclasscheck__": lambda kind, other: issubclass(other, kind), "whole": whole, "make": make,
    "signature": signature, "pickle": pickled,
    "unpickle": unpickled, "inspect": inspected,
}  # fmt: skip
"""The operations of the answer's process: everything that is requested, since it affects only that process."""
