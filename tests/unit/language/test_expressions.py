"""Expressions as written: holes, plain paths, JavaScript's scopes, problems with their places."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexcore.language.expressions import (
    NamesInScope,
    Problem,
    check_reads,
    compile_condition,
    compile_expression,
    compile_template,
    secrets_in,
)
from flexcore.model.template import (
    Expression,
    ListTemplate,
    Literal,
    MapTemplate,
    Position,
    SecretName,
    Template,
    Text,
    expressions_in,
)

START = Position(line=10, column=5)


def compiled(value: Any, *, allow_secrets: bool = True) -> Template:
    template, problems = compile_template(value, locate=lambda _: START, allow_secrets=allow_secrets)
    assert problems == []
    return template


def refused(value: Any, *, allow_secrets: bool = True) -> list[Problem]:
    return compile_template(value, locate=lambda _: START, allow_secrets=allow_secrets)[1]


def expression(source: str) -> Expression:
    found, problems = compile_expression(source, START)
    assert problems == []
    assert found is not None
    return found


@pytest.mark.parametrize(
    "source",
    [
        "input.x",
        "{a: {b: input.x}}",
        '"}}"',
        "'${{ not a hole }}'",
        "`}}${ {a: {b: input.x}}.a }`",
        "/}}/.test(input.x)",
        "input.x /* }} */",
        "[{a: {b: 1}}].map(({a: {b}}) => ({b: {c: b}}))",
        "input.x\n  .filter(x => x)\n  .map(x => ({y: {z: x}}))",
    ],
)
def test_a_hole_ends_where_its_expression_ends(source: str) -> None:
    alone = compiled("${{ " + source + " }}")
    tight = compiled("a ${{" + source + "}} b ${{ input.y }}")

    assert isinstance(alone, Expression)
    assert alone.source == source
    assert isinstance(tight, Text)
    assert [each.source for each in expressions_in(tight)] == [source, "input.y"]
    assert (tight.parts[0], tight.parts[2]) == ("a ", " b ")


def test_a_value_without_holes_is_one_literal() -> None:
    value = {"a": [1, None, "b"], "c": {"d": "${HOME} $${{ x }}"}}

    assert compiled(value) == Literal({"a": [1, None, "b"], "c": {"d": "${HOME} ${{ x }}"}})


def test_holes_make_lists_and_mappings_of_templates() -> None:
    template = compiled({"a": ["${{ input.x }}", 2], "b": "t"})

    assert isinstance(template, MapTemplate)
    assert template.items[0] == ("a", ListTemplate((expression("input.x"), Literal(2))))
    assert template.items[1] == ("b", Literal("t"))


def test_the_line_end_of_a_block_does_not_make_text_of_a_value() -> None:
    assert compiled("${{ input.x }}\n") == expression("input.x")
    assert isinstance(compiled("${{ input.x }} "), Text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.text("${} x", max_size=12),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("ab$"), inner),
    )
)
def test_escaped_values_come_back_as_they_were(value: Any) -> None:
    assert compiled(_escaped(value)) == Literal(value)


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.replace("${{", "$${{")
        case dict():
            return {key: _escaped(each) for key, each in value.items()}
        case list():
            return [_escaped(each) for each in value]
    return value


@given(
    st.lists(
        st.sampled_from(
            ["${{", "}}", "$", "{", "}", "input", ".x", "'", '"', "`", "/", " ", "\n", "secrets.A", "(", ")", "é"]
        )
    )
)
def test_any_string_compiles_or_is_refused_with_a_place(pieces: list[str]) -> None:
    text = "".join(pieces)

    _, problems = compile_template(text, locate=lambda _: START, allow_secrets=True)

    for each in problems:
        assert START.line <= each.position.line <= START.line + text.count("\n")
        assert START.column <= each.position.column <= START.column + len(text)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("input", ("input",)),
        ("results.fetch.rows[0].id", ("results", "fetch", "rows", 0, "id")),
        ("results.check?.done", ("results", "check", "done")),
        ("results?.['a b']?.[\"c\"]", ("results", "a b", "c")),
        ("input.rows.length", ("input", "rows", "length")),
        ("input\n  .a\n  .b", ("input", "a", "b")),
        ("input.$x._y", ("input", "$x", "_y")),
        ('input["0"]', ("input", "0")),
    ],
)
def test_plain_paths_are_recognised(source: str, path: tuple[str | int, ...]) -> None:
    assert expression(source).path == path


@pytest.mark.parametrize(
    "source", ["input.a()", "input.a + 1", "!input.a", "input[input.a]", "(input.a)", "input['\\u0061']", "input[-1]"]
)
def test_anything_more_than_a_path_is_javascript(source: str) -> None:
    assert expression(source).path is None
    assert expression(source).literal is None


@pytest.mark.parametrize("source", ["1", "-2.5e3", "true", "null", '"a\\n"', "'x'", '[1, {"a": null}]'])
def test_json_literals_are_recognised(source: str) -> None:
    assert expression(source).literal == (json.loads(source.replace("'", '"')),)


@pytest.mark.parametrize(
    "source", ["undefined", "NaN", "1e999", '{"__proto__": 1}', '"\\ud800"', "{a: 1}", "-Infinity"]
)
def test_what_json_reads_differently_is_no_literal(source: str) -> None:
    assert expression(source).literal is None


def test_reads_name_the_steps_variables_and_roots() -> None:
    found = expression("results.a.map(x => x.b + results['c'].d + vars.v + input.e + (results => results.f)(1))")

    assert found.reads == (("results", "a"), ("results", "c"), ("vars", "v"), ("input",))
    assert expression("results[input.x]").reads == (("results",), ("input",))
    assert expression("(({fetch}) => fetch)(results)").reads == (("results",),)


@pytest.mark.parametrize(
    "source",
    [
        "input.map((x, i = x) => x + i)",
        "input.map(({id, a: [b, ...c], d = b, ...rest}) => [id, b, c, d, rest])",
        "input.map(({[vars.key]: value}) => value)",
        "input.reduce(function sum(a, b) { return arguments.length + sum.length + a + b }, 0)",
        "(() => { let a = 1; const {b, c: [d]} = input; var e = b; return a + d + e })()",
        "(() => { if (input) { var late = 1 } return late })()",
        "(() => { for (let i = 0; i < 3; i++) { for (const k of input) { for (var j in k); } } return j })()",
        "(() => { try { return input() } catch ({message: m}) { return m } })()",
        "(() => { try { return input() } catch { return f() } function f() { return 1 } })()",
        "(() => { switch (input) { case 1: let s = 1; return s; default: return s } })()",
        "(() => { outer: for (;;) { break outer } return 1 })()",
        "({input, get g() { return 1 }, m(p) { return p }, ['k' + input.k]: 1})",
        "`${input.map(x => `${x}`).join()}`",
        "[...input].sort(({n: a}, {n: b}) => a - b)",
        "(secrets => secrets)(input)",
        "typeof input === 'object' ? Object.entries(input) : [Math.max(1, 2), JSON.stringify(input), parseInt('1')]",
        "new Date(input.at).getTime() - Date.parse(execution.started_at)",
    ],
)
def test_names_that_an_expression_declares_are_its_own(source: str) -> None:
    assert expression(source).source == source


@pytest.mark.parametrize(
    ("source", "column", "message", "hint"),
    [
        ("resluts.a", 0, "unknown name 'resluts'", "did you mean 'results'?"),
        ("input.map(x => y)", 15, "unknown name 'y'", "names here"),
        ("input.map(x => x) + x", 20, "unknown name 'x'", "names here"),
        ("(() => { { let a = 1 } return a })()", 30, "unknown name 'a'", "names here"),
        ("input.map((x = z) => x)", 15, "unknown name 'z'", "names here"),
        ("({b}) ", 2, "unknown name 'b'", "names here"),
        ("process.exit()", 0, "unknown name 'process'", "names here"),
        ("globalThis", 0, "unknown name 'globalThis'", "names here"),
        ("eval('1')", 0, "unknown name 'eval'", ""),
        ("iter.valu", 0, "'iter' has no 'valu'", "did you mean 'value'?"),
        ("input = 1", 0, "'input' cannot be assigned to", "another name"),
        ("1 + new Date()", 8, "an expression has no current time", "execution.started_at"),
        ("Date.now()", 0, "an expression has no current time", "execution.started_at"),
        ("Date('x')", 0, "an expression has no current time", "execution.started_at"),
        ("Math.random()", 0, "an expression has no chance", "step"),
        ("await input", 0, "an expression cannot wait", ""),
        ("import('x')", 0, "an expression cannot import", ""),
        ("input + 12345678901234567890", 8, "the number 12345678901234567890 is beyond 2^53", "text"),
        ("1, 2", 0, "two values, separated by a comma", "[a, b]"),
        ("input.a +", 9, "the expression does not parse: it ends too early", ""),
        ("input a", 6, "the expression does not parse at 'a'", ""),
        ("1; 2", 1, "the expression does not parse at ';'", ""),
        ("1) + (2", 0, "this is not one expression", ""),
        ("input + 'x", 10, "the expression does not parse: ' is missing", ""),
        ("'é' + nope", 6, "unknown name 'nope'", ""),
    ],
)
def test_problems_say_what_where_and_how_to_mend(source: str, column: int, message: str, hint: str) -> None:
    found, problems = compile_expression(source, START)

    assert found is None
    assert problems[0].message.startswith(message)
    assert hint in problems[0].hint
    assert problems[0].position == Position(line=10, column=5 + column)


def test_all_problems_of_a_value_are_found_at_once_with_their_places() -> None:
    value = {"a": "x ${{ nope }}", "b": ["${{ input.x +\n  nope }}", "${{ open"], "${{ k }}": 1}

    problems = refused(value)

    assert [(each.position.line, each.position.column, each.code) for each in problems] == [
        (10, 11, "unknown-name"),
        (11, 7, "unknown-name"),
        (10, 5, "unterminated"),
        (10, 5, "expression-in-key"),
    ]


def test_endless_nesting_and_length_are_refused_quickly() -> None:
    assert expression("(" * 500 + "input.a" + ")" * 500).reads == (("input",),)
    assert refused("${{ " + "[" * 20_000 + "]" * 20_000 + " }}")[0].code == "syntax"
    assert refused("${{ (" + "}} " * 5_000)[0].code == "syntax"


def test_a_secret_stands_alone_between_its_braces() -> None:
    assert compiled("${{ secrets.TOKEN }}") == Text((SecretName("TOKEN"),))
    assert compiled("Bearer ${{secrets.TOKEN}}!") == Text(("Bearer ", SecretName("TOKEN"), "!"))
    assert list(secrets_in(compiled({"a": ["${{ secrets.A }}", "${{ secrets.B }}"]}))) == ["A", "B"]


@pytest.mark.parametrize(
    "source",
    [
        "secrets['TOKEN']",
        "secrets",
        "secrets.A + secrets.B",
        "secrets.A.length",
        "(() => { let s = secrets; return s.A })()",
        "({secrets})",
    ],
)
def test_a_secret_in_a_longer_expression_is_refused(source: str) -> None:
    assert refused("${{ " + source + " }}")[0].code == "secret-in-expression"


def test_a_secret_outside_of_with_is_refused() -> None:
    assert [each.code for each in refused("${{ secrets.A }}", allow_secrets=False)] == ["secret-not-allowed"]


def test_a_condition_is_one_expression_or_a_boolean() -> None:
    assert compile_condition("${{ input.x > 1 }}", START)[0] == expression("input.x > 1")
    assert compile_condition(False, START)[0] == Expression(source="false", literal=(False,))
    assert compile_condition("yes", START)[1][0].code == "not-a-condition"
    assert compile_condition("${{ nope }}", START)[1][0].code == "unknown-name"


SCOPE = NamesInScope(
    finished=frozenset({"fetch"}),
    unfinished=frozenset({"load"}),
    elsewhere={"inner": "read the loop's result instead: results.each"},
    vars=frozenset({"alert_url"}),
    env=frozenset({"HOME"}),
)


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("results.fetsh.rows", "unknown step 'fetsh'", "did you mean 'fetch'?"),
        ("results.load", "step 'load' cannot have finished by then", "needs"),
        ("results.inner", "step 'inner' is not visible here", "results.each"),
        ("vars.alert_ur", "unknown variable 'alert_ur'", "alert_url"),
        ("env.PATH", "unknown environment name 'PATH'", "declare"),
        ("iter.value", "'iter' exists only inside a loop", "foreach"),
        ("error.message", "there is no 'error' here", "catch"),
    ],
)
def test_reads_are_checked_against_the_place(source: str, message: str, hint: str) -> None:
    problems = check_reads(expression("input.a + " + source), SCOPE)

    assert [(each.message, each.position.column) for each in problems] == [(message, 15)]
    assert hint in problems[0].hint


def test_what_is_in_scope_is_no_problem() -> None:
    there = NamesInScope(finished=frozenset({"fetch"}), has_iter=True, has_error=True)

    assert check_reads(expression("[results.fetch, iter.value, error, vars.x, env.y, previous_result]"), there) == []
