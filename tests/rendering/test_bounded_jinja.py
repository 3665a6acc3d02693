"""Hostile chat templates end with an error: counted, not timed. Ordinary ones render as transformers renders them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from conftest import CHATML, write_tiny_gguf
from journeyman.errors import InputError
from journeyman.models.gguf_file import GgufFile
from journeyman.records import Message
from journeyman.rendering.bounded_jinja import MOST_SOURCE, compiled
from journeyman.rendering.jinja_work import limited_work
from journeyman.rendering.renderer import Renderer

MESSAGES = [{"role": "user", "content": "hi"}]
GROWING = "{% set ns = namespace(x=FIRST) %}{% for i in range(60) %}{% set ns.x = NEXT %}{% endfor %}"


def growing(first: str, following: str, then: str) -> str:
    return GROWING.replace("FIRST", first).replace("NEXT", following) + then


BIG = "{% set x = 'a' * 1000000 %}"
STEPS, TEXT = "too many steps", "too much text"
HOSTILE: dict[str, tuple[str, str]] = {
    "a long range": ("{% for i in range(10**9) %}x{% endfor %}", STEPS),
    "loops in loops": ("{% for a in 'aaaaaaaaaa' %}" * 12 + "{% endfor %}" * 12, STEPS),
    "a loop over its input": ("{% for i in range(90000) %}{% for m in messages * 90 %}{% endfor %}{% endfor %}", STEPS),
    "a filter in a loop": ("{% for i in range(90000) if range(90000)|list|length %}{% endfor %}", STEPS),
    "a recursive loop": ("{% for i in [[1]] recursive %}{{ loop([i]) }}{% endfor %}", "a recursive loop"),
    "a macro that calls itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    "one that does so twice": (
        "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}", STEPS,
    ),
    "blocks of calls": (
        "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call m() %}" * 40 + "{% endcall %}" * 40,
        STEPS,
    ),
    "text times a number": ("{{ 'a' * 10**10 }}", TEXT),
    "a number times text": ("{% set n = 10**9 %}{{ n * messages[0].content }}", TEXT),
    "a list times a number": ("{{ ([1] * 10**9)|length }}", STEPS),
    "text that doubles by ~": (growing("'aaaa'", "ns.x ~ ns.x", "{{ ns.x }}"), TEXT),
    "text that doubles by +": (growing("'aaaa'", "ns.x + ns.x", "{{ ns.x }}"), TEXT),
    "text that doubles in blocks": ("{% set x %}aaaaaaaa{% endset %}" + "{% set x %}{{x}}{{x}}{% endset %}" * 60, TEXT),
    "a list that doubles": (growing("[1]", "ns.x + ns.x", "{{ ns.x|length }}"), STEPS),
    "lists in lists": (growing("[1]", "[ns.x, ns.x]", "{{ ns.x }}"), STEPS),
    "tuples in tuples": (growing("(1,)", "(ns.x, ns.x)", "{{ {ns.x: 1} }}"), STEPS),
    "objects in objects": (growing("1", "{'a': ns.x, 'b': ns.x}", "{{ ns.x|tojson }}"), STEPS),
    "objects by a call": (growing("1", "dict(a=ns.x, b=ns.x)", "{{ ns.x == ns.x }}"), STEPS),
    "namespaces in namespaces": (growing("1", "namespace(a=ns.x, b=ns.x)", "{{ ns.x ~ '' }}"), "namespace"),
    "heavy lists, often": (BIG + "{{ ([[x] * 1000] * 1000)|tojson }}", TEXT),
    "equal heavy lists": (
        "{% set x = ['a'] * 90000 %}{% set y = ['aa'[:1]] * 90000 %}"
        "{% for i in x %}{% if x == y %}{% endif %}{% endfor %}",
        STEPS,
    ),
    "replaced by something long": (BIG + "{% set y = x.replace('a', x) %}", TEXT),
    "the same as a filter": (BIG + "{{ x|replace(old='a', new=x) }}", TEXT),
    "joined by something long": (BIG + "{{ x.join(x) }}", TEXT),
    "a default, joined often": (BIG + "{{ (range(90000)|map(attribute='q', default=x))|join }}", STEPS),
    "the same by a method": (BIG + "{{ ''.join(range(90000)|map(attribute='q', default=x)) }}", STEPS),
    "many small widths": ("{{ ('%(a)99d' * 1000000) % {'a': 1} }}", TEXT),
    "%, with a width": ("{{ '%1000000000d' % 1 }}", "a width"),
    "%, with a computed width": ("{{ '%*d' % (1000000000, 1) }}", "a width"),
    "%, with a name often": (BIG + "{{ ('%(a)s' * 100000) % {'a': x} }}", TEXT),
    "the filter format": ("{{ '%1000000000s'|format(1) }}", "a width"),
    "format with a width": ("{{ '{:>1000000000}'.format(1) }}", "a width"),
    "format with a computed width": ("{{ '{:{}}'.format(1, 1000000000) }}", "a width"),
    "format with a place often": (BIG + "{{ ('{0}' * 100000).format(x) }}", TEXT),
    "padding": ("{{ 'a'.center(10**10) }}", "center"),
    "padding as a filter": ("{{ 'a'|center(10**10) }}", "the filter 'center'"),
    "tabs": ("{{ '\t'.expandtabs(10**9) }}", "expandtabs"),
    "indented far": ("{{ 'a\n'|indent(10**9) }}", "too far"),
    "JSON indented far": ("{{ [[1]]|tojson(indent=10**9) }}", "too far"),
    "JSON with long separators": ("{{ ([1] * 1000)|tojson(separators=('a' * 100000, 'b')) }}", "too far"),
    "a power": ("{{ 10 ** 10 ** 9 }}", "that is too large"),
    "squares of squares": ("{% set n = 2 ** 60 %}" + "{% set n = n * n %}" * 40, "a number that is too large"),
    "many digits": ("{{ 1.5|round(10**9, 'ceil') }}", "too many digits"),
    "bytes of a number": ("{{ (5).to_bytes(10**10, 'big') }}", "to_bytes"),
    "many pieces": ("{{ ('a ' * 8000000).split()|length }}", TEXT),
    "slices of nothing": ("{{ [1]|slice(10**9, 0)|list }}", STEPS),
    "slow stripping": ("{% set x = 'b' * 900000 %}{{ x.strip('a' * 900000 ~ 'b') }}", TEXT),
    "slow searching": ("{% set x = 'a' * 900000 %}{{ x.rfind('b' ~ 'a' * 90000) }}", TEXT),
    "searched often": (BIG + "{% if 'b' in x %}{% endif %}" * 1000, TEXT),
    "chance": ("{{ [1, 2]|random }}", "the filter 'random'"),
    "another file": ("{% include '/etc/passwd' %}", "include"),
    "another module": ("{% import 'os' as os %}", "import"),
    "Python's objects": ("{{ messages.__init__.__globals__ }}", "unsafe"),
    "a namespace's class": ("{% set ns = namespace() %}{% set ns.__class__ = 'x' %}", "underscore"),
    "deep parentheses": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deep"),
    "deep conditions": ("{% if 1 %}" * 500 + "{% endif %}" * 500, "nested too deep"),
    "long chains": ("{{ 1" + "|string" * 10000 + " }}", "nested too deep"),
    "a long source": ("a" * (MOST_SOURCE + 1), "more than 131,072"),
    "an error of its own": ("{{ 1 / 0 }}", "division by zero"),
    "a loop object": ("{% for m in messages %}{{ loop }}{% endfor %}", "writes a LoopContext"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_with_the_reason(name: str) -> None:
    source, why = HOSTILE[name]
    with pytest.raises((TemplateError, RecursionError, ZeroDivisionError), match=why), limited_work(1, 2):
        compiled(source).render(messages=MESSAGES, add_generation_prompt=True)


@pytest.mark.parametrize("name", ["loops in loops", "text times a number", "an error of its own", "deep parentheses"])
def test_a_base_with_a_hostile_template_is_refused_when_it_is_opened(name: str, tmp_path: Path) -> None:
    source, why = HOSTILE[name]
    with pytest.raises(InputError, match=why):
        Renderer(GgufFile(write_tiny_gguf(tmp_path / "m.gguf", template=CHATML + source)))


def test_one_that_waits_for_a_conversation_refuses_that_conversation(tmp_path: Path) -> None:
    late = "{% if messages[0].content == 'now' %}" + HOSTILE["loops in loops"][0] + "{% endif %}"
    renderer = Renderer(GgufFile(write_tiny_gguf(tmp_path / "m.gguf", template=CHATML + late)))
    assert renderer.prompt_text([Message(role="user", content="later")])
    with pytest.raises(InputError, match=r"refuses the turns user: it makes too many steps for this conversation"):
        renderer.prompt_text([Message(role="user", content="now")])


def test_long_conversations_have_more_work(tmp_path: Path) -> None:
    roles = ("user", "assistant")
    long = [Message(role=roles[number % 2], content=f"{number} " * 500) for number in range(1199)]
    every = "{% for m in messages %}{% for n in messages[:300] %}{% endfor %}{% endfor %}"
    renderer = Renderer(GgufFile(write_tiny_gguf(tmp_path / "m.gguf", template=every + CHATML)))
    assert renderer.prompt_text(long).count("<|im_start|>") == 1200


FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "operators": ("{{ 'a' + 'b' ~ 1 ~ none ~ [1, 'x'] ~ {'a': 1} }}{{ 1 + 2 * 3 - 4 // 3 % 5 }}{{ 7 / 2 }}", {}),
    "sums of lists": ("{{ ([1] + [2] + x)|length }}{{ (x + x)[-1] }}{{ ['a'] * 2 }}", {"x": [3, 4]}),
    "formats": ("{{ '%s-%02d' % ('a', 7) }}{{ '{}:{b}'.format(1, b=2) }}{{ '%s'|format(x) }}", {"x": "y"}),
    "slices": ("{{ messages[::-1][0].content }}{{ 'abc'[1:] }}{{ 'abc'[::-1] }}{{ messages[1:]|length }}", {}),
    "methods": (
        "{{ ' a b '.strip().split(' ')|join('-') }}{{ 'abc'.startswith('a') }}{{ 'a</t>b'.split('</t>')[-1] }}"
        "{{ 'xaxx'.lstrip('x').rstrip('x').upper() }}{{ 'a,b'.replace(',', '') }}{{ ', '.join(['a', 'b']) }}",
        {},
    ),
    "objects": (
        "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k, v in d|dictsort %}{{ k }}{% endfor %}"
        "{{ d.get('z', 'none') }}{{ d.keys()|list }}{{ d|items|list }}{{ dict(a=1)|tojson }}{{ 'b' in d }}",
        {"d": {"b": 1, "a": [None, True]}},
    ),
    "JSON": (
        "{{ d|tojson }}{{ d|tojson(indent=2) }}{{ d|tojson(separators=(',', ':'), sort_keys=true) }}"
        "{{ d|tojson(ensure_ascii=true) }}",
        {"d": {"ü": "<b>&'", "a": [1.5, {"x": None}]}},
    ),
    "filters": (
        "{{ x|map('upper')|join(',') }}{{ y|selectattr('a', 'equalto', 1)|list|length }}"
        "{{ ' a '|trim }}{{ z|default('d') }}"
        "{{ y|map(attribute='a')|list }}{{ y|rejectattr('a')|list }}{{ x|sort|first }}{{ x|reverse|list }}"
        "{{ x|unique|list }}"
        "{{ 'a\nb'|indent(2) }}{{ [1, 2]|sum }}{{ '3'|int + 1 }}{{ 'a b'|title }}{{ x|length }}{{ 1.25|round(1) }}",
        {"x": ["b", "a", "b"], "y": [{"a": 1}, {"a": 2}]},
    ),
    "loops": (
        "{% for m in x %}{% if m == 2 %}{% continue %}{% endif %}{% if m == 4 %}{% break %}{% endif %}{{ loop.index }}"
        "{{ m }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}"
        "{% for m in x if m > 3 %}{{ m }}{% endfor %}{% for m in [] %}{% else %}empty{% endfor %}",
        {"x": [1, 2, 3, 4, 5]},
    ),
    "macros": (
        "{% macro m(a, b='c') %}{{ a }}{{ b }}{{ caller() if caller else '' }}{% endmacro %}{{ m('x') ~ m(1, b=2) }}"
        "{% call m('y') %}z{% endcall %}{% set block %}in{{ 1 }}{% endset %}{{ block|upper }}"
        "{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"
        "{% filter upper %}f{% endfilter %}",
        {},
    ),
    "tests": (
        "{{ x is defined }}{{ q is defined }}{{ x is string }}{{ d is mapping }}{{ none is none }}{{ 3 is odd }}"
        "{{ 1 is eq 1 }}{{ 'a' is in ['a'] }}{{ x is not none and x }}{{ true is true }}{{ d.a is sequence }}"
        "{{ d is iterable }}",
        {"x": "s", "d": {"a": []}},
    ),
    "generation": ("a{% generation %}{{ messages[0].content }}\n{% endgeneration %}\nb\n", {}),
    "white space": ("  {% if true %}\n  a\n  {% endif %}\n{%- if true -%}  b {%- endif %}\n\n  c  {# d #}\n", {}),
}


@pytest.mark.parametrize("name", FEATURES)
def test_it_renders_what_transformers_renders(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    source, variables = FEATURES[name]
    theirs = render_jinja_template([MESSAGES], chat_template=source, add_generation_prompt=False, **variables)[0][0]
    with limited_work(1, 2):
        ours = compiled(source).render(
            messages=MESSAGES, tools=None, documents=None, add_generation_prompt=False, **variables
        )
    assert ours == theirs
