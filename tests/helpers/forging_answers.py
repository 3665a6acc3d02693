"""Answers that try to forge `add(1, 2) == 3`; none of them adds."""

from __future__ import annotations

FORGERIES = {
    "the harness's frames": r"""
import sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        frame.f_locals.update(passed=True); frame.f_globals.update(passed=True, AssertionError=ValueError)
        for thing in list(frame.f_locals.values()):
            if hasattr(thing, 'give'):
                thing.give(True, '')
        frame = frame.f_back
    return 0
""",
    "every descriptor": r"""
import os
for fd in range(64):
    for said in (b'{"passed": true, "detail": "", "gone": false}\n',):
        try:
            os.write(fd, said)
        except OSError:
            pass
def add(a, b):
    return 0
""",
    "a hunt through the collector": r"""
import gc
def add(a, b):
    for thing in gc.get_objects():
        if type(thing).__name__ in ('JudgeReport', 'Judging'):
            getattr(thing, 'verdict', thing).give(True, '')
        if type(thing) is dict and 'verdict' in thing:
            thing['passed'] = True
    return 0
""",
    "a trace": r"""
import sys
sys.settrace(lambda *a: sys.exit(0))
sys.setprofile(lambda *a: None)
def add(a, b):
    return 0
""",
    "the jail's own modules": r"""
import sys, os
for module in list(sys.modules.values()):
    for name in ('encode', 'exec', 'decode'):
        if hasattr(module, name):
            setattr(module, name, lambda *a, **k: 3)
def add(a, b):
    return 0
""",
    "at exit": r"""
import atexit, os
atexit.register(lambda: os._exit(0))
atexit.register(print, 'passed')
def add(a, b):
    return 0
""",
    "a finalizer": r"""
import os
class Last:
    def __del__(self): os._exit(0)
last = Last()
def add(a, b):
    return 0
""",
    "an excepthook": r"""
import sys, os
sys.excepthook = sys.unraisablehook = lambda *a: os._exit(0)
def add(a, b):
    return 0
""",
    "equal to everything": r"""
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __sub__(self, other): return self
    __rsub__ = __add__ = __sub__
    def __abs__(self): return 0.0
    def __lt__(self, other): return True
    __gt__ = __le__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return 3
def add(a, b): return Any()
""",
    "an int that is equal to everything": r"""
class Any(int):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __lt__(self, other): return True
    __hash__ = int.__hash__
def add(a, b): return Any(7)
""",
    "a list that is equal to everything": r"""
class Any(list):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
def add(a, b): return Any()
""",
    "something of unittest": r"""
from unittest.mock import ANY, MagicMock
def add(a, b): return ANY
""",
    "a name of unittest": r"""
from unittest.mock import MagicMock as add
""",
    "builtins of its own": r"""
def abs(x): return 0
AssertionError = ZeroDivisionError
len = all = any = abs
def add(a, b):
    return 0
""",
    "builtins of the interpreter": r"""
import builtins
builtins.abs = lambda x: 0
builtins.AssertionError = ValueError
def add(a, b):
    return 0
""",
    "a class that lies about itself": r"""
class Any:
    __class__ = int
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
def add(a, b): return Any()
""",
    "an exit inside the call": r"""
import os
def add(a, b): os._exit(0)
""",
    "an exception that ends the judge": r"""
def add(a, b): raise SystemExit(0)
""",
    "a broken protocol": r"""
import os
for fd in range(3, 64):
    try:
        os.write(fd, (1 << 40).to_bytes(8, 'little') * 9)
    except OSError:
        pass
def add(a, b):
    return 0
""",
    "names of the standard library that it says it has": r"""
import sys
values = sys.modules['values']
old = values.encode
def encode(peer, v, key=False):
    return ['R', 'unittest.mock', 'ANY', None] if v == 0 else old(peer, v, key)
values.encode = sys.modules['peer'].encode = encode
def add(a, b):
    return 0
""",
    "the tests' source": r"""
import gc
def add(a, b):
    for thing in gc.get_objects():
        if type(thing) is dict:
            for text in list(thing.values()):
                if type(text) is str and 'assert add(1, 2) == 3' in text and 'gc' not in text:
                    return 3
    return 0
""",
    "its parent's memory": r"""
import os, re
def add(a, b):
    for pid in (1, 2, 3, os.getppid()):
        try:
            if 'assert' in open(f'/proc/{pid}/mem').read(): return 3
        except (OSError, ValueError):
            pass
    return 0
""",
    "the judge's descriptors": r"""
import ctypes, os
libc = ctypes.CDLL(None)
for pid in range(1, 9):
    handle = libc.syscall(434, pid, 0)
    for fd in range(64):
        got = libc.syscall(438, handle, fd, 0)
        if got >= 0:
            os.write(got, b'{"passed": true, "detail": "", "gone": false}\n')
def add(a, b):
    return 0
""",
    "tests swallowed by a callback": r"""
def add(a, b):
    try:
        return add.__globals__['check'](a)
    except Exception:
        return 0
""",
}
