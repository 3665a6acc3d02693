"""Lists, dicts and sets that both sides share: changes made by one side reach the other when it continues.

So `sort(items)` sorts the list of the test that passed it, and `tree.children.append(x)` reaches the tree. A container
that is referenced only by this table is released.
"""

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from itertools import chain
from operator import is_

KINDS = {kind.__name__: kind for kind in (list, dict, set, bytearray, deque, Counter, OrderedDict, defaultdict)}
RAW = {int, float, str, bool, type(None)}
BIG = 1 << 63


class Entry:
    __slots__ = ("seen", "thing")

    def __init__(self, thing):
        self.thing = thing
        self.look()

    def look(self):
        self.seen = parts(self.thing)

    def changed(self):
        now = parts(self.thing)
        if isinstance(now, bytes):
            return now != self.seen
        return len(now) != len(self.seen) or not all(map(is_, now, self.seen))


def parts(thing):
    if isinstance(thing, bytearray):
        return bytes(thing)
    return list(chain.from_iterable(thing.items())) if isinstance(thing, dict) else list(thing)


class Links:
    def __init__(self, peer, number):
        self.peer, self.next = peer, number
        self.entries, self.numbers = {}, {}

    def encode(self, thing):
        number = self.numbers.get(id(thing))
        if number is not None:
            return ["l", number]
        self.next += 2
        number = self.next
        self.add(number, thing)
        return ["L", number, type(thing).__name__, self.content(thing)]

    def add(self, number, thing):
        self.entries[number] = Entry(thing)
        self.numbers[id(thing)] = number

    def content(self, thing):
        from values import encode

        if isinstance(thing, bytearray):
            return thing.decode("latin-1")
        extra = [encode(self.peer, thing.default_factory)] if type(thing) is defaultdict else []
        extra = [thing.maxlen] if type(thing) is deque else extra
        members = parts(thing)
        if set(map(type, members)) <= RAW and all(-BIG < m < BIG for m in members if type(m) is int):
            return [extra, members, 1]
        keyed = isinstance(thing, (dict, set))
        step = 2 if isinstance(thing, dict) else 1
        return [extra, [encode(self.peer, m, keyed and i % step == 0) for i, m in enumerate(members)], 0]

    def decode(self, number, name, content):
        extra = () if name == "bytearray" else content[0]
        if name == "deque":
            thing = deque(maxlen=extra[0])
        elif name == "defaultdict":
            from values import decode

            thing = defaultdict(decode(self.peer, extra[0]))
        else:
            thing = KINDS[name]()
        self.add(number, thing)
        self.fill(number, content)
        return thing

    def fill(self, number, content):
        from values import decode

        entry = self.entries[number]
        thing = entry.thing
        if isinstance(thing, bytearray):
            thing[:] = content.encode("latin-1")
        else:
            members = content[1] if content[2] else [decode(self.peer, m) for m in content[1]]
            thing.clear()
            if isinstance(thing, dict):
                for at in range(0, len(members), 2):
                    thing[members[at]] = members[at + 1]
            elif isinstance(thing, set):
                thing.update(members)
            else:
                thing.extend(members)
        entry.look()

    def changes(self):
        """The containers that changed here since the last exchange, and those that were released."""
        changed, dropped = [], []
        for number in list(self.entries):
            entry = self.entries[number]
            if entry.changed():
                entry.look()
                changed.append([number, self.content(entry.thing)])
            if sys.getrefcount(entry.thing) <= 2:  # the entry and getrefcount's argument
                dropped.append(number)
                self.drop(number)
        return changed, dropped

    def update(self, changed, dropped):
        for number, content in changed:
            if number in self.entries:
                self.fill(number, content)
        for number in dropped:
            self.drop(number)

    def drop(self, number):
        entry = self.entries.pop(number, None)
        if entry is not None:
            self.numbers.pop(id(entry.thing), None)
