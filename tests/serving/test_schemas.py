"""Schemas that would stop the engine for everybody are refused; those that people write are not."""

from __future__ import annotations

import enum
import re
import sys
from contextlib import suppress
from itertools import product
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from journeyman.serving.errors import RequestError
from journeyman.serving.schema_limits.limits import MAX_AT_ONCE, check_schemas
from journeyman.serving.schema_limits.patterns import cost_of
from journeyman.serving.schema_limits.references import MAX_NAME


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _object(**named: Any) -> dict[str, Any]:
    return {"type": "object", "properties": named, "required": list(named)}


def _either(*alternatives: Any) -> dict[str, Any]:
    return {"anyOf": list(alternatives)}


def _again(schema: dict[str, Any]) -> dict[str, Any]:
    return {"$ref": "#/$defs/a", "$defs": {"a": schema}}


def _doubled(levels: int) -> dict[str, Any]:
    made = {f"d{n}": _either(*[_list({"$ref": f"#/$defs/d{n + 1}"})] * 2) for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**made, f"d{levels}": {"type": "string"}}}


A = {"$ref": "#/$defs/a"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "repetitions within each other": (_text("^(((a){0,1000}){0,1000}){0,1000}$"), "1,000,000,000"),
    "two of them": (_object(b=_text("^(a{0,1000}){0,1000}$")), "1,000,000"),
    "repetitions of optional parts": (_text(f"^({'a?' * 20}){{0,20}}b$"), "401"),
    "optional parts in a row": (_text("^" + "a?" * 200 + "b$"), "201"),
    "repetitions in a row": (_text("^" + "[a-z ]{0,40}" * 50 + "é$"), "1,962"),
    "a class that overlaps": (_text(r"^([a-z]{1,60}[k-m]{1,60}){1,60}$"), "7,200"),
    "a huge repetition": (_text("^a{100000000}$"), "100,000,000"),
    "a repetition of fewer than none": (_text("^(a{3,2})?$"), "above the second"),
    "a literal with an escape at its end": (_text("^" + "a" * 400 + r"\.{400}$"), "160,400"),
    "repetitions with what is no number in them": (_text("^((a{1,1000x}){1,1000 }){+1,1000-}$"), "1,000,000,000"),
    "a pattern of many definitions": (
        {"type": "array", "prefixItems": [A] * 30, "$defs": {"a": _text("^a{1,1000}$")}}, "30,000"),
    "alternatives with patterns": (_either(*[_text("^" + "a?" * 15 + "$")] * 7), "525"),
    "a tree of alternatives": (_doubled(8), "1,280"),
    "lists in lists that begin alike": (_again(_either(_list(A), _list(A))), "begin alike"),
    "objects in objects that begin alike": (_again(_either(_object(a=A), _object(a=A))), "begin alike"),
    "with an optional beginning": (
        _again(_either(_object(a=A), {"type": "object", "properties": {"b": A}})), "begin alike"),
    "with equal constants": (_again(_either(*[_object(k={"const": "x"}, a=A)] * 2)), "begin alike"),
    "with values in common": (
        _again(_either(_object(k={"enum": ["x", "y"]}, a=A), _object(k={"enum": ["y", "z"]}, a=A))), "begin alike"),
    "through another definition": (
        {"$ref": "#/$defs/a", "$defs": {"a": _either(_list({"$ref": "#/$defs/b"}), _list(A)), "b": A}}, "begin alike"),
    "of types": (_again({"type": ["array", "array"], "items": A}), "begin alike"),
    "of allOf": (_again({"allOf": [_either(_object(a=A), _object(a=A))]}), "begin alike"),
    "a reference to itself": (_again(A), "itself"),
    "a reference to itself in allOf": ({"allOf": [A], "$defs": {"a": A}}, "itself"),
    "a reference to the root": ({"$ref": "#"}, "itself"),
    "references in a circle": ({"$ref": "#/$defs/b", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": A}}, "itself"),
    "a recursive property that is called like a keyword": (
        _object(definitions=_either(*[_list({"$ref": "#/properties/definitions"})] * 2)), "begin alike"),
    "the pattern of such a property": (_object(definitions=_text("^(a{1,9}){1,9}$")), "81"),
    "such a property as often as it is referred to": (
        {"prefixItems": [{"$ref": "#/a"}] * 30, "a": _object(definitions=_text("^a{1,1000}$"))}, "30,000"),
    "lists that begin alike at a place in a list": (
        _object(a={"$ref": "#/properties/b/anyOf/1"}, b=_either(
            {"type": "null"}, _either(*[_list({"$ref": "#/properties/b/anyOf/1"})] * 2))), "begin alike"),
    "a reference to a place that is not in the list": (_either({"$ref": "#/anyOf/2"}, {}), "#/$defs/name"),
    "a reference to a place that is no number": (_either({"$ref": "#/anyOf/1a"}, {"type": "null"}), "#/$defs/name"),
    "references of one name": (
        _object(x={"$ref": "#/$defs/a_b"}, y={"$ref": "#/$defs/a-b"}) | {"$defs": {"a_b": {}, "a-b": {}}}, "one name"),
    "a reference with the name of a property": (
        _object(x={"$ref": "#/$defs/Order"}, y={"$ref": "#/$defs/Order_item"})
        | {"$defs": {"Order": _object(item={"const": 1}), "Order_item": {"const": 2}}}, "one name"),
    "a reference with the name of an alternative": (
        _object(x={"$ref": "#/$defs/a"}, y={"$ref": "#/$defs/a-0"})
        | {"$defs": {"a": {"type": ["string", "null"]}, "a-0": {"const": 2}}}, "one name"),
    "a reference with the number of a second property": (
        _object(x={"$ref": "#/$defs/a"}, y={"$ref": "#/$defs/a-b-c0"})
        | {"$defs": {"a": _object(**{"b_c": {"const": 1}, "b-c": {"const": 2}}), "a-b-c0": {}}}, "one name"),
    "an escaped slash": ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}}, "#/$defs/name"),
    "a reference to a name with an escape in it": (
        {"$ref": "#/$defs/a~1b", "$defs": {
            "a~1b": _either(*[_list({"$ref": "#/$defs/a~1b"})] * 2), "a/b": {"type": "string"}}}, "begin alike"),
    "a reference that leads nowhere": ({"$ref": "#/$defs/none"}, "#/$defs/name"),
    "a reference without a slash": ({"properties": {"0": {"$ref": "0"}}}, "#/$defs/name"),
    "a reference to another document": ({"$ref": "https://example.org/schema#/a"}, "#/$defs/name"),
    "a reference to what is no schema": ({"$ref": "#/type", "type": "object"}, "#/$defs/name"),
    "alternatives that are no list": ({"anyOf": {"x": {}, "y": {}}}, "must be a list"),
    "an enum without values": ({"enum": []}, "must be a list"),
    "properties that are no object": ({"properties": [{"type": "string"}]}, "must be an object"),
    "a schema that is none": (_object(a="text"), "must be an object"),
    "an unknown type": ({"type": "text"}, "must be one of"),
    "types that are none": ({"type": [["string"]]}, "must be text"),
    "many types": ({"type": ["string"] * 8}, "must be text"),
    "values of several types": ({"type": ["string", "null"], "enum": list(range(251))}, "504"),
    "a count that is not possible": (_list({"type": "string", "minLength": 3, "maxLength": 2}), "minLength is above"),
    "a list that is not possible": ({"type": "array", "items": {}, "minItems": 9, "maxItems": 3}, "minItems is above"),
    "a number that is not possible": ({"type": "integer", "minimum": 5, "exclusiveMaximum": 5}, "bound is above"),
    "a number of many digits": ({"type": "integer", "minimum": 10**15}, "15 digits"),
    "a negative number of many digits": ({"type": "integer", "exclusiveMaximum": -(10**15) + 1}, "15 digits"),
    "a number beyond 64 bits": ({"type": "integer", "minimum": 0, "maximum": (1 << 64) - 1}, "63 bits"),
    "a bound in a value that is referred to": ({"$ref": "#/default", "default": {"maxLength": 5000}}, "1000"),
    "a long name": (_object(**{"!" * 513: {"type": "string"}}), "513"),
    "a long definition": ({"$ref": f"#/$defs/{'!' * 600}", "$defs": {"!" * 600: {}}}, "608"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_would_stop_the_engine_is_refused(name: str) -> None:
    schema, said = REFUSED[name]
    with pytest.raises(RequestError) as caught:
        check_schemas([("place", schema)])
    error = caught.value
    assert error.status == 400 and error.message.startswith("place") and (error.param or "").startswith("place")
    assert said in error.message


NODE = _object(value={"type": "integer"}, left=_either(A, {"type": "null"}), right=_either(A, {"type": "null"}))
ACCEPTED: dict[str, dict[str, Any]] = {
    "addresses": _text(r"^[^@]+@[^@]+\.[^@]+$"),
    "numbers of the internet": _text(r"^([0-9]{1,3}\.){3}[0-9]{1,3}$"),
    "identifiers": _object(**{f"p{n}": _text("^[A-Za-z_][A-Za-z0-9_]{0,63}$") for n in range(30)}),
    "a text of up to 1,000 characters": _text("^.{1,1000}$"),
    "words": _text("^(red|green|blue|gray)$"),
    "words in a row": _text("^([a-z]{1,20} ){1,200}$"),
    "base64": _text("^(?:[A-Za-z0-9+/]{4}){1,200}={0,2}$"),
    "dates": _text(r"^\d{4}-\d{2}-\d{2}$"),
    "lists of lists": _list({"type": "array", "maxItems": 1000, "items": _list({"type": "string", "maxLength": 1000})}),
    "a binary tree": _again(NODE),
    "JSON": _again({"type": ["array", "object", "string", "null"], "items": A, "additionalProperties": A}),
    "a tree of two kinds": _again(_either(*[_object(k={"const": k}, l=A, r=A) for k in "+*-/"], {"type": "number"})),
    "of three kinds": _again(_either(_object(no=A), _object(all=_list(A)), _list(A), {"type": "string"})),
    "500 values": {"enum": list(range(500))},
    "100 alternatives": _either(*[_object(**{f"p{n}": {"type": "string"}}) for n in range(100)]),
    "a few levels": _doubled(6),
    "values in many places": {**_object(**{f"p{n}": A for n in range(50)}), "$defs": {"a": {"enum": [*"abcdefgh"]}}},
    "a base": _again({"allOf": [_object(name={"type": "string"}), _object(inner=_either(A, {"type": "null"}))]}),
    "the root again": _object(next=_either({"$ref": "#"}, {"type": "null"})),
    "a place in a list": _object(a={"$ref": "#/properties/b/anyOf/1"}, b=_either({"type": "null"}, {})),
    "anything": {"type": "object", "properties": {"a": True, "b": {"allOf": [True]}}, "additionalProperties": True},
    "definitions that are named alike": {
        **_object(a={"$ref": "#/$defs/Node"}, b={"$ref": "#/$defs/Node2"}, c={"$ref": "#/$defs/Node-Input"}),
        "$defs": {"Node": _object(id={"type": "string"}), "Node2": {"type": "string"}, "Node-Input": {}}},
    "names of keywords": _object(
        definitions=_list({"$ref": "#/properties/default"}), default={"type": "integer"}, enum={"type": "string"}),
    "bounds in values": {"type": "string", "default": {"maxLength": 5000}, "examples": [{"minItems": -1}]},
    "bounds of what is not read": {"type": "object", "$defs": {"a": {"maxLength": 5000}}, "not": {"maxItems": 9999}},
    "the numbers of JavaScript": {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1},
    "positive numbers": {"type": "integer", "exclusiveMinimum": 0},
    "numbers that need 15 digits": {"type": "integer", "minimum": 10**15 - 1},
    "no reference": {"properties": {"$ref": {"type": "string"}, "anyOf": {"type": "string"}}},
}  # fmt: skip


class _Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class _Leaf(BaseModel):
    kind: Literal["leaf"]
    color: _Color | None = None
    weights: dict[str, float] = {}
    size: Annotated[int, Field(ge=0, le=2**53 - 1)] = 1


class _Branch(BaseModel):
    kind: Literal["branch"]
    children: list[Annotated[_Leaf | _Branch, Field(discriminator="kind")]]
    near: tuple[_Leaf, Any] | None = None


def test_the_schemas_of_pydantic_are_accepted() -> None:
    class Call(BaseModel):
        tree: _Branch
        also: _Leaf

    check_schemas([("root", _Branch.model_json_schema()), ("first", Call.model_json_schema())])
    check_schemas([("other", TypeAdapter(list[_Branch]).json_schema(mode="serialization"))])


@pytest.mark.parametrize("name", ACCEPTED)
def test_schemas_that_people_write_are_accepted(name: str) -> None:
    check_schemas([("place", ACCEPTED[name])])


ATOMS = ("a", "[ab]", "[^a]", "(a|b)", "(ab|a)", "(ab|ac)", "(a?b)")
COUNTS = ("", "?", "*", "+", "{2}", "{0,3}", "{1,2}", "{2,}")
PARTS = [atom + count for atom, count in product(ATOMS, COUNTS)]
GROUPS = [f"({one}{other}){count}" for one, other in zip(PARTS, PARTS[7:] + PARTS[:7], strict=True) for count in COUNTS]


def test_a_text_is_never_at_more_places_than_were_counted() -> None:
    """Counts the places by following all texts of up to 6 characters through the pattern, as the engine does."""
    for pattern in [*PARTS, *GROUPS, *(one + other for one, other in zip(GROUPS, GROUPS[5:], strict=False))]:
        bound = cost_of(f"^{pattern}$")
        assert _most_at_once(pattern) <= bound.at_once <= max(bound.places, 1), pattern


Place = tuple[int, ...]


def _most_at_once(pattern: str, length: int = 6) -> int:
    tree = re._parser.parse(pattern)  # type: ignore[attr-defined]
    starts, following, matches = _automaton(tree)
    most, at = 0, {frozenset(starts)}
    for _ in range(length):
        at = {frozenset(place for place in places if matches[place](character)) for places in at for character in "abc"}
        most = max(most, *map(len, at))
        at = {frozenset(after for place in places for after in following[place]) for places in at if places}
        if not at:
            break
    return most


def _automaton(tree: Any) -> tuple[set[int], dict[int, set[int]], dict[int, Any]]:
    """The places of a pattern with its repetitions written out, those that may follow each, and what each matches."""
    following: dict[int, set[int]] = {}
    matches: dict[int, Any] = {}

    def place(match: Any) -> tuple[set[int], set[int], bool]:
        number = len(matches)
        matches[number], following[number] = match, set()
        return {number}, {number}, False

    def then(one: Any, other: Any) -> Any:
        for last in one[1]:
            following[last] |= other[0]
        first = one[0] | other[0] if one[2] else one[0]
        last = one[1] | other[1] if other[2] else other[1]
        return first, last, one[2] and other[2]

    def of(items: Any) -> Any:
        made: Any = (set(), set(), True)
        for kind, value in items:
            made = then(made, item(str(kind), value))
        return made

    def item(kind: str, value: Any) -> Any:
        if kind == "LITERAL":
            return place(lambda c: c == chr(value))
        if kind == "NOT_LITERAL":
            return place(lambda c: c != chr(value))
        if kind == "IN":
            negated = str(value[0][0]) == "NEGATE"
            named = {chr(one) for name, one in value if str(name) == "LITERAL"}
            return place(lambda c: (c in named) != negated)
        if kind == "SUBPATTERN":
            return of(value[3])
        if kind == "BRANCH":
            made = [of(one) for one in value[1]]
            return set().union(*(m[0] for m in made)), set().union(*(m[1] for m in made)), any(m[2] for m in made)
        assert kind == "MAX_REPEAT"
        least, most, inner = int(value[0]), int(value[1]), value[2]
        made: Any = (set(), set(), True)
        if most > 1000:  # one that refers to itself
            one = of(inner)
            then(one, one)
            made = (one[0], one[1], True)
        for number in reversed(range(least if most > 1000 else most)):  # each optional one within the one before it
            made = then(of(inner), made)
            made = made if number < least else (made[0], made[1], True)
        return made

    first, _, _ = of(tree)
    return first, following, matches


def test_what_a_pattern_costs() -> None:
    assert (cost_of("^[a-z]{1,9}$").places, cost_of("^[a-z]{1,9}$").at_once) == (9, 1)
    assert cost_of("^(a{1,9}){1,9}$").at_once == 81
    assert cost_of("^a{1,9}b{1,9}$").at_once == 1
    assert cost_of(r"^[\x61-\x63]{1,9}[^a-c]{1,9}$").at_once == 1
    assert cost_of(r"^\w{1,9}[a-c]{1,9}$").at_once == 10, "a class that the engine does not know is any character"
    assert cost_of(r"^([\t-\na]{1,30}[a]{1,30}){1,5}$").at_once == 300, "the class contains a"
    assert cost_of(r"^[\t-\x41]{1,9}a{1,9}$").at_once == cost_of(r"^[\x41-\t]{1,9}a{1,9}$").at_once == 1
    for repeated, places in {
        r"ab\.{2}": 6,
        "ab{2}": 3,
        r"a\.b{2}": 4,
        r"a.\.{2}": 4,
        "a{ 2 ,3x}": 3,
        "a{2,b}": 6,
    }.items():
        assert cost_of(f"^{repeated}$").places == places, repeated
    for odd in ("(" * 999, "[", "a{", "\\", "a**", "{3}", "[a-\\]]", "a)b", "(?=a)b", "a{99999999999999999999}"):
        assert cost_of(odd).at_once <= max(MAX_AT_ONCE, cost_of(odd).places)


def _names_of_the_root(count: int) -> dict[str, Any]:
    return {f"k{number}": {"$ref": str(number)} for number in range(count)}


def _chain(count: int) -> dict[str, Any]:
    links = {str(number): {"$ref": f"#/{number + 1}"} for number in range(count)}
    return {"properties": {"a": {"$ref": "#/0"}}, **links, str(count): {"type": "string"}}


def _circles(count: int) -> dict[str, Any]:
    return {"$defs": {f"d{n}": _list({"$ref": f"#/$defs/d{(n + 1) % count}"}) for n in range(count)}, **_list(A0)}


def _long_place(count: int) -> dict[str, Any]:
    schema = _object(**{f"p{number}": {"type": "string", "pattern": "^a$"} for number in range(150)})
    for _ in range(count // 25):
        schema = {"additionalProperties": schema, "properties": {"!" * 200: {"type": "string"}}}
    return schema


def _every_type(count: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(count // 50):
        inner = {"type": ["array", "object"], "items": inner, "properties": {"a": inner}}
    return inner


def _same_choices(count: int) -> dict[str, Any]:
    some = [_object(k={"const": number}, a={"$ref": "#"}) for number in range(count // 40)]
    return {"anyOf": [{"$ref": "#/$defs/b"}] * (count // 40), "$defs": {"b": {"anyOf": some}}}


A0 = {"$ref": "#/$defs/d0"}


@pytest.mark.parametrize("made", [_names_of_the_root, _chain, _circles, _long_place, _every_type, _same_choices])
def test_the_check_takes_no_more_than_twice_the_steps_for_twice_the_schema(made: Any) -> None:
    steps = [_steps(made(count)) for count in (400, 800)]
    assert steps[1] < 2.5 * steps[0] + 1000


def _steps(schema: dict[str, Any]) -> int:
    """How many functions the check calls, including those of built-in types."""
    count = 0

    def called(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        with suppress(RequestError):
            check_schemas([("place", schema)])
    finally:
        sys.setprofile(before)
    return count


def test_the_schemas_of_one_request_count_together_however_often_they_are_sent() -> None:
    one = {"enum": list(range(200))}
    for _ in range(2):
        check_schemas([("first", one), ("second", one)])
        with pytest.raises(RequestError, match="third: 600 alternatives"):
            check_schemas([("first", one), ("second", one), ("third", one)])
    for _ in range(2):
        with pytest.raises(RequestError, match="place: 501"):
            check_schemas([("place", {"enum": list(range(501))})])


def test_the_tools_of_one_request_share_definitions_only_if_they_are_equal() -> None:
    def tool(**defined: Any) -> dict[str, Any]:
        return {**_object(**{f"p{name}": {"$ref": f"#/$defs/{name}"} for name in defined}), "$defs": defined}

    item = _object(k={"const": "x"})
    for _ in range(2):
        check_schemas([("first", tool(Item=item)), ("second", tool(Item={**item, "description": "Another."}))])
        with pytest.raises(RequestError, match=r"second: \$ref #/\$defs/Item and .* one name"):
            check_schemas([("first", tool(Item=item)), ("second", tool(Item=_object(k={"const": "y"})))])
        with pytest.raises(RequestError, match="one name"):
            check_schemas([("first", tool(Item_k={"const": "y"})), ("second", tool(Item=item))])


def test_a_name_at_the_limit_is_accepted() -> None:
    check_schemas([("place", _object(**{"!" * MAX_NAME: {"type": "string"}}))])
