"""Prompt templates: what they can do, cannot do, and say when they are wrong."""

from __future__ import annotations

import time
from typing import Any

import pytest

from adjoin.errors import InputError
from adjoin.functions.builtin import template as templates
from adjoin.functions.builtin.template import check_template, render
from adjoin.types import Passage

PASSAGES = [
    Passage(id="1", text="alpha", source="a.md", metadata={"page": 3}),
    Passage(id="2", text="beta", source="b.md"),
]
VALUES: dict[str, Any] = {"name": "Bob", "passages": PASSAGES, "nothing": None}
NUMBERED = """{% for p in passages %}
{{ loop.index }}. {{ p.text }}{% if p.metadata.page %} (p. {{ p.metadata.page }}){% endif %}

{% endfor %}
End"""


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("Hello {{ name }}!", "Hello Bob!"),
        ("<{{ '<b>' }}>", "<<b>>"),
        ("[{{ nothing }}]", "[]"),
        ("{{ passages }}", "[a.md] alpha\n\n[b.md] beta"),
        (
            NUMBERED,
            "1. alpha (p. 3)\n2. beta\nEnd",
        ),
        ("{{ passages | map(attribute='text') | join(', ') }}", "alpha, beta"),
        ("{{ passages | join('; ', attribute='source') }}", "a.md; b.md"),
        ("{{ passages | sort(attribute='text', reverse=true) | first }}", "[b.md] beta"),
        ("{% set n = 1 %}{{ n + 1 }} {{ 2 * 3 }} {{ 7 // 2 }} {{ 'a' ~ n }}", "2 6 3 a1"),
        ("{{ name | upper | indent(2, true) }}|{{ name[:2] }}", "  BOB|Bo"),
        ("{{ 'yes' if name else 'no' }} {{ absent | default('d') }}", "yes d"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{{ passages[0].metadata | tojson }} {{ 2.5 | round }}", '{"page":3} 2.0'),
        ("{% for i in range(3) %}{{ loop.cycle('x', 'y') }}{% else %}none{% endfor %}", "xyx"),
        ("{{ 'a,b'.split(',')[1] }} {{ 'a-b' | replace('-', '+') }}", "b a+b"),
    ],
)
def test_what_templates_can_do(text: str, prompt: str) -> None:
    assert render(text, VALUES) == prompt


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ name.__class__ }}", "unsafe"),
        ("{{ name['__class__'] }}", "unsafe"),
        ("{{ passages | map(attribute='__class__') | list }}", "unsafe"),
        ("{{ passages | map(attribute='text.__class__') | join }}", "unsafe"),
        ("{{ passages | sort(attribute='__class__') }}", "unsafe"),
        ("{{ passages | groupby('__class__') }}", "unsafe"),
        ("{{ passages | join(',', '__class__') }}", "unsafe"),
        ("{{ name | attr('upper') }}", "No filter named 'attr'"),
        ("{{ '{0.__class__}'.format(name) }}", r"format\(\) may not be called"),
        ("{{ name.upper.__self__ }}", "unsafe"),
        ("{{ range.__globals__ }}", "unsafe"),
        ("{{ __tick__() }}", "private"),
        ("{% set __tick__ = 1 %}", "private"),
        ("{% for __keep__ in [1] %}{% endfor %}", "private"),
        ("{{ self }}", "private"),
        ("{% macro f() %}{% endmacro %}", "macro is not available"),
        ("{% include 'x' %}", "include is not available"),
        ("{% import 'x' as x %}", "import is not available"),
        ("{% extends 'x' %}", "extends is not available"),
        ("{% set x %}{% endset %}", "not available"),
        ("{% for x in [1] recursive %}{% endfor %}", "recursive"),
        ("{{ cycler }}", "'cycler' is not given"),
        ("{{ lipsum() }}", "'lipsum' is not given"),
    ],
)
def test_what_templates_cannot_reach(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        render(text, VALUES)


BIG = "{% set b = range(9999) | join('x') %}"


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ [1] * 10**9 }}",
        "{{ 2 ** (10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'a' | indent(10**9, true) }}",
        "{{ 'x'.ljust(10**9) }}",
        "{{ 'x'.zfill(10**9) }}",
        "{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 60,
        "{% set x = 'ab' %}" + "{% set x = x + x %}" * 60,
        "{% set x = [1] %}" + "{% set x = x + x %}" * 60,
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60,
        "{% set x = (1,) %}" + "{% set x = (x, x) %}" * 60,
        "{% set x = {'a': 1} %}" + "{% set x = {'a': x, 'b': x} %}" * 60,
        BIG + "{{ b | replace('x', b) }}",
        BIG + "{{ b | replace('', b) }}",
        BIG + "{{ range(9999) | join(b) }}",
        BIG + "{{ range(9999) | map('string') | map('replace', '1', b) | list | length }}",
        "{% for i in range(9999) %}" + "x" * 1000 + "{% endfor %}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{{ " + "not " * 5000 + "1 }}",
        "{{ " + "1+" * 20000 + "1 }}",
        "{% if 1 %}" * 500 + "{% endif %}" * 500,
        "x" * (templates.MAX_TEMPLATE + 1),
    ],
)
def test_templates_cannot_run_for_ever(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError):
        render(text, VALUES)
    assert time.perf_counter() - start < 10


def test_a_missing_variable_is_named_with_the_nearest_and_the_template() -> None:
    with pytest.raises(InputError) as caught:
        render("Dear reader,\n{{ naem }}", VALUES)
    text = str(caught.value)
    assert "'naem'" in text
    assert "did you mean 'name'?" in text
    assert "template 'Dear reader, {{ naem }}', line 2" in text


def test_a_missing_attribute_is_an_error_and_a_missing_key_may_be_asked_for() -> None:
    with pytest.raises(InputError, match="no attribute 'titel'"):
        render("{% if passages[0].titel %}{% endif %}", VALUES)
    with pytest.raises(InputError, match="no attribute 'titel'"):
        render("{{ passages[0].metadata.titel }}", VALUES)
    assert render("{% if passages[0].metadata.titel %}x{% endif %}", VALUES) == ""


@pytest.mark.parametrize(
    ("text", "line"), [("a\n{{ name", 2), ("{% iff %}", 1), ("\n\n{{ name | nofilter }}", 3)]
)
def test_a_mistake_in_the_template_has_a_line(text: str, line: int) -> None:
    with pytest.raises(InputError, match=f"line {line}"):
        render(text, VALUES)


@pytest.mark.parametrize("text", ["{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ 5 | truncate }}"])
def test_a_mistake_with_values_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="cannot be rendered"):
        render(text, VALUES)


def test_private_variables_are_refused() -> None:
    with pytest.raises(InputError, match="'__tick__' is private"):
        render("x", {"__tick__": 1})


def test_variables_can_be_checked_before_anything_runs() -> None:
    text = "{% set own = 1 %}{% for p in passages %}{{ p }} {{ own }} {{ range(2) }}{% endfor %}"
    check_template(text, ["passages", "unused"])
    check_template("{% if hint is defined %}{{ hint }}{% endif %}{{ tone | default('dry') }}", [])
    with pytest.raises(InputError, match=r"'passages' is not given.*did you mean 'passage'"):
        check_template(text, ["passage"])
    with pytest.raises(InputError, match="line 1"):
        check_template("{{", [])
