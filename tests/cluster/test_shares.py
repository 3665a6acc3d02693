"""Which nodes and GPUs train which adapter, without a cluster."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("ray")

from journeyman.cluster.shares import Division, Needs, Node, Place, Shares, divided, in_proportion

PROCESSORS, CARDS = Needs(True), Needs(False)


def _nodes(count: int, cpus: int = 8, cards: int = 0) -> list[Node]:
    return [Node(f"n{number}", f"host {number}", cpus, cards) for number in range(count)]


def _counts(places: list[Place]) -> dict[str, int]:
    return dict(Counter(one.node.id for one in places))


def test_larger_adapters_get_more() -> None:
    assert in_proportion([100, 100], 4) == [2, 2]
    assert in_proportion([300, 100], 4) == [3, 1]
    assert in_proportion([1000, 1, 1], 5) == [3, 1, 1]
    assert in_proportion([10, 10, 10], 4) == [2, 1, 1]


def test_each_adapter_has_its_own_nodes_if_there_are_enough() -> None:
    nodes = _nodes(4)
    division = divided([300, 100], nodes, PROCESSORS)
    assert division == Division([300, 100])
    shares = Shares(PROCESSORS, division, lambda: nodes)
    first, second = shares.take(0), shares.take(1)
    assert len(first) == 3
    assert len(second) == 1
    assert not {one.node.id for one in first} & {one.node.id for one in second}
    assert {one.portion for one in first + second} == {1.0}


def test_the_gpus_of_an_adapter_are_on_one_node_where_that_is_possible() -> None:
    nodes = _nodes(2, cards=4)
    shares = Shares(CARDS, divided([5, 5, 5, 5], nodes, CARDS), lambda: nodes)
    taken = [_counts(shares.take(part)) for part in range(4)]
    assert [list(one.values()) for one in taken] == [[2]] * 4
    assert sum((Counter(one) for one in taken), Counter[str]()) == {"n0": 4, "n1": 4}


@pytest.mark.parametrize(
    ("needs", "nodes", "parts", "portion"),
    [
        (Needs(True), _nodes(1, cpus=8), 3, 1 / 3),
        (Needs(True), _nodes(1, cpus=2), 2, 1 / 2),  # not more than it has CPUs
        (Needs(True, threads=4), _nodes(1, cpus=8), 2, 1 / 2),
        (Needs(False, memory=30, card=100), _nodes(1, cards=1), 3, 1 / 3),
        (Needs(False, memory=40, card=100), _nodes(1, cards=1), 2, 1 / 2),
        (Needs(False, memory=10, card=100), _nodes(1, cards=2), 3, 1 / 2),
    ],
)
def test_with_fewer_as_many_as_fit_share(needs: Needs, nodes: list[Node], parts: int, portion: float) -> None:
    division = divided([10, 10, 10], nodes, needs)
    assert division is not None
    assert len(division.sizes) == parts
    shares = Shares(needs, division, lambda: nodes)
    assert [[one.portion for one in shares.take(part)] for part in range(parts)] == [[portion]] * parts


def test_memory_limits_how_many_share_a_node() -> None:
    node = Node("n", "host", 16, 0, memory=10e9)
    assert Needs(True, memory=4e9).fit(node) == 2
    assert Needs(True, memory=40e9).fit(node) == 1
    assert divided([1, 1], [node], Needs(True, memory=40e9)) is None


@pytest.mark.parametrize(
    ("sizes", "nodes", "needs"),
    [
        ([1000, 10], _nodes(2), PROCESSORS),  # one of two nodes would soon have nothing to do
        ([10, 10], [], PROCESSORS),
        ([10, 10], _nodes(1, cards=3), Needs(False, least=2)),  # a shared base needs two of the three
    ],
)
def test_otherwise_they_are_trained_one_after_another(sizes: list[int], nodes: list[Node], needs: Needs) -> None:
    assert divided(sizes, nodes, needs) is None


def test_adapters_of_a_base_that_needs_several_gpus_get_so_many() -> None:
    nodes, needs = _nodes(2, cards=4), Needs(False, least=4)
    division = divided([10, 10, 10], nodes, needs)
    shares = Shares(needs, division, lambda: nodes)
    assert [sum(_counts(shares.take(part)).values()) for part in range(2)] == [4, 4]
    assert divided([10, 10, 10], _nodes(2, cards=3), needs) is None


def test_after_a_loss_a_part_takes_what_is_free_and_waits_for_the_others() -> None:
    nodes = _nodes(3)
    shares = Shares(PROCESSORS, Division([10, 10]), lambda: nodes)
    assert len(shares.take(0)) == 2
    (place,) = shares.take(1)
    nodes.remove(place.node)
    assert shares.take(1) == []
    assert shares.waits(1)
    shares.leave(0)
    assert not shares.waits(1)
    assert {one.node.id for one in shares.take(1)} == {one.id for one in nodes}, "the only one that is left"


def test_the_only_part_has_all() -> None:
    nodes = [*_nodes(2, cards=2), Node("head", "head", 0, 0)]
    assert _counts(Shares(CARDS, find=lambda: nodes).take(0)) == {"n0": 2, "n1": 2}
    assert _counts(Shares(PROCESSORS, find=lambda: nodes).take(0)) == {"n0": 1, "n1": 1}
