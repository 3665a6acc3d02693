"""Correct answers with their tests: what works in one process must work in two."""

from __future__ import annotations

HONEST = {
    "a dataclass with postponed annotations": (
        r"""
from __future__ import annotations
from dataclasses import dataclass
@dataclass(frozen=True, order=True)
class P:
    x: int
    y: int = 2
""",
        r"""
assert P(1) == P(1, 2) != P(2)
assert P(1).y == 2
assert {P(1), P(1, 2)} == {P(1)}
assert sorted([P(3), P(1)])[0] == P(1)
assert repr(P(1)) == 'P(x=1, y=2)'
assert isinstance(P(1), P)
""",
    ),
    "pickle of its own classes": (
        r"""
import pickle
class P:
    def __init__(self): self.x = 4
def copied(p): return pickle.loads(pickle.dumps(p))
""",
        r"""
assert copied(P()).x == 4
import pickle, copy
assert pickle.loads(pickle.dumps(P())).x == 4
assert copy.deepcopy(P()).x == 4
""",
    ),
    "its own source": (
        r"""
import inspect
def f(): return 1
def mine(): return inspect.getsource(f)
""",
        r"""
import inspect
assert mine() == inspect.getsource(f) == 'def f(): return 1\n'
assert inspect.isfunction(f)
""",
    ),
    "output at exit": (
        r"""
import atexit
atexit.register(print, 'bye')
def f(): return 1
""",
        r"""
assert f() == 1
""",
    ),
    "an open pipe": (
        r"""
import os
ends = os.pipe()
def f(): return 1
""",
        r"""
assert f() == 1
""",
    ),
    "an empty folder": (
        r"""
import os
def f(): return os.listdir('.')
""",
        r"""
import os
assert f() == os.listdir('.') == []
""",
    ),
    "a list sorted in place": (
        r"""
def order(items): items.sort()
def same(items): return items
""",
        r"""
items = [3, 1, [2]][:2]
order(items)
assert items == [1, 3]
assert same(items) is items
""",
    ),
    "containers inside objects": (
        r"""
class Node:
    def __init__(self, v): self.v, self.children, self.kept = v, [], {}
    def total(self): return self.v + sum(c.total() for c in self.children)
""",
        r"""
root = Node(1)
root.children.append(Node(2))
root.children[0].children.append(Node(4))
assert root.total() == 7 and len(root.children) == 1
root.kept['a'] = 1
assert root.kept == {'a': 1}
""",
    ),
    "an argument that is kept": (
        r"""
class Box:
    def __init__(self, items): self.items = items
    def add(self, x): self.items.append(x)
""",
        r"""
items = [1]
box = Box(items)
box.add(2)
assert items == [1, 2]
items.append(3)
assert box.items == [1, 2, 3]
""",
    ),
    "callbacks": (
        r"""
def apply(f, *a, **k): return f(*a, **k)
def twice(f): return lambda x: f(f(x))
def caught(f):
    try:
        f()
    except ValueError as error:
        return str(error)
""",
        r"""
assert apply(lambda x, y=1: x + y, 2, y=3) == 5
assert twice(lambda x: x * 3)(2) == 18
def bad(): raise ValueError('no')
assert caught(bad) == 'no'
seen = []
apply(seen.append, 4)
assert seen == [4]
assert apply(lambda g: apply(g, 1), lambda x: x + 1) == 2
""",
    ),
    "objects of the tests": (
        r"""
def use(client): return client.get('u')['n'] + client.calls
def total(xs): return sum(x.v for x in xs)
""",
        r"""
class Client:
    calls = 0
    def get(self, url):
        self.calls += 1
        return {'n': len(url)}
assert use(Client()) == 2
from unittest.mock import Mock
m = Mock()
m.get.return_value = {'n': 1}
m.calls = 0
assert use(m) == 1
m.get.assert_called_once_with('u')
""",
    ),
    "exceptions": (
        r"""
class Mine(ValueError):
    def __init__(self, code): super().__init__('code %d' % code); self.code = code
def f(): raise Mine(7)
def g(): return {}['x']
def h(): import json; json.loads('{')
""",
        r"""
import json
try:
    f()
except Mine as error:
    assert error.code == 7 and str(error) == 'code 7'
else:
    assert False
try:
    f()
except ValueError:
    pass
try:
    g()
except KeyError as error:
    assert error.args == ('x',)
else:
    assert False
try:
    h()
except json.JSONDecodeError:
    pass
assert Mine(3).code == 3
""",
    ),
    "data of all kinds": (
        r"""
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
import datetime, enum
P = namedtuple('P', 'x y')
class Color(enum.Enum):
    RED = 1
class Level(enum.IntEnum):
    LOW = 1
def same(x): return x
def all_kinds(): return [Counter('aab'), OrderedDict(a=1), deque([1]), Decimal('1.5'), Fraction(1, 3), 1j, b'x',
    (1, (2,)), {1, 2}, frozenset({3}), range(3), 2**200, float('inf'), None, True, datetime.date(2024, 1, 2),
    datetime.timedelta(1), datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc), '\ud800', P(1, 2),
    bytearray(b'y')]
""",
        r"""
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
import datetime as d
wanted = [Counter('aab'), OrderedDict(a=1), deque([1]), Decimal('1.5'), Fraction(1, 3), 1j, b'x',
    (1, (2,)), {1, 2}, frozenset({3}), range(3), 2**200, float('inf'), None, True, d.date(2024, 1, 2),
    d.timedelta(1), d.datetime(2024, 1, 2, tzinfo=d.timezone.utc), '\ud800', (1, 2), bytearray(b'y')]
assert all_kinds() == wanted == same(wanted)
assert [type(a) for a in all_kinds()][:19] == [type(a) for a in wanted][:19]
assert P(1, 2).x == 1 and P(1, 2) == (1, 2) and isinstance(P(1, 2), tuple)
assert Color.RED is Color(1) and Color.RED.value == 1
assert Level.LOW == 1 and Level.LOW < 2 and repr(P(1, 2)) == 'P(x=1, y=2)'
loop = [1]
loop.append(loop)
assert same(loop) is loop
assert str(same(float('nan'))) == 'nan'
""",
    ),
    "operators": (
        r"""
class V:
    def __init__(self, x): self.x = x
    def __add__(self, o): return V(self.x + o.x)
    def __mul__(self, k): return V(self.x * k)
    __rmul__ = __mul__
    def __eq__(self, o): return self.x == o.x
    def __abs__(self): return abs(self.x)
    def __len__(self): return 2
    def __getitem__(self, i): return self.x
    def __contains__(self, x): return x == self.x
    def __bool__(self): return self.x != 0
class L(list):
    def push(self, x): self.append(x)
""",
        r"""
assert (V(1) + V(2)).x == 3 and (V(2) * 3) == (3 * V(2)) == V(6)
assert abs(V(-3)) == 3 and len(V(1)) == 2
assert V(4)[0] == 4 and 4 in V(4) and not V(0)
l = L()
l.push(1)
assert l == [1] and len(l) == 1
""",
    ),
    "iterators and contexts": (
        r"""
import contextlib
def count():
    n = 0
    while True:
        yield n
        n += 1
def few():
    yield from 'ab'
@contextlib.contextmanager
def quiet(log):
    log.append('in')
    try:
        yield 5
    except KeyError:
        pass
    log.append('out')
""",
        r"""
import itertools
assert list(itertools.islice(count(), 3)) == [0, 1, 2] and list(few()) == ['a', 'b']
log = []
with quiet(log) as n:
    assert n == 5 and log == ['in']
    raise KeyError
assert log == ['in', 'out']
""",
    ),
    "what it prints and reads": (
        r"""
def hello(): print('hello', input())
""",
        r"""
import io, sys, contextlib
out = io.StringIO()
sys.stdin = io.StringIO('you\n')
with contextlib.redirect_stdout(out):
    hello()
assert out.getvalue() == 'hello you\n'
from unittest.mock import patch
with patch('builtins.input', return_value='me'), contextlib.redirect_stdout(out):
    hello()
assert out.getvalue().endswith('hello me\n')
""",
    ),
    "coroutines": (
        r"""
import asyncio
async def f(x):
    await asyncio.sleep(0)
    return x + 1
async def g(h): return await h(1)
""",
        r"""
import asyncio
assert asyncio.run(f(1)) == 2
async def both(): return await asyncio.gather(f(1), f(2))
assert asyncio.run(both()) == [2, 3]
async def h(x):
    await asyncio.sleep(0)
    return x * 5
assert asyncio.run(g(h)) == 5
""",
    ),
    "threads": (
        r"""
import threading
class C:
    def __init__(self): self.n, self.lock = 0, threading.Lock()
    def up(self):
        with self.lock:
            self.n += 1
""",
        r"""
import threading
c = C()
ts = [threading.Thread(target=c.up) for _ in range(8)]
[t.start() for t in ts]
[t.join() for t in ts]
assert c.n == 8
""",
    ),
    "globals that change": (
        r"""
n = 0
def up():
    global n
    n += 1
""",
        r"""
up(); up()
assert n == 2
""",
    ),
    "a seed": (
        r"""
import random
def roll(): return random.random()
""",
        r"""
import random
random.seed(4)
a = roll()
random.seed(4)
assert a == roll()
""",
    ),
    "an environment": (
        r"""
import os
def f(): return os.environ['X']
""",
        r"""
import os
os.environ['X'] = '1'
assert f() == '1'
""",
    ),
    "a builtin's name": (
        r"""
def sum(a, b): return a + b
""",
        r"""
assert sum(1, 2) == 3
""",
    ),
    "types": (
        r"""
from collections import namedtuple
class P:
    pass
class E(Exception): pass
N = namedtuple("N", "x")
def data(): return 1
""",
        r"""
assert type(P()) is P and type(P()) == P and type(P()).__name__ == "P" and P().__class__ is P
assert type(data()) is int and type([]) is list and isinstance(P, type) and not isinstance(P(), type)
assert type(N(1)) is N and type(E()) is E and type("A", (), {})().__class__.__name__ == "A"
assert type(P()) is not N
""",
    ),
    "a signature": (
        r"""
def f(a: int, b: 'str' = 'x', *c, d=None) -> list[int]:
    '''Return it.'''
    return []
""",
        r"""
import inspect
s = inspect.signature(f)
assert list(s.parameters) == ['a', 'b', 'c', 'd']
assert s.parameters['a'].annotation is int and s.parameters['b'].default == 'x'
assert s.return_annotation is not s.empty and f.__doc__ == 'Return it.' and f.__name__ == 'f'
""",
    ),
    "what it imports": (
        r"""
import math
from typing import List
from math import isclose
""",
        r"""
assert math.pi > 3 and isclose(1, 1)
x: List[int] = []
""",
    ),
    "recursion and depth": (
        r"""
def f(x): return x
def deep():
    x = []
    for _ in range(200): x = [x]
    return x
""",
        r"""
assert f(deep()) == deep()
""",
    ),
    "many calls": (
        r"""
def f(xs): return sum(xs)
""",
        r"""
for n in range(500):
    assert f(list(range(50))) == 1225
""",
    ),
    "a subprocess of threads": (
        r"""
from concurrent.futures import ThreadPoolExecutor
def f(g):
    with ThreadPoolExecutor(2) as p: return list(p.map(g, [1, 2]))
""",
        r"""
assert f(lambda x: x + 1) == [2, 3]
""",
    ),
}
