"""Filling templates without JavaScript."""

from typing import Any

import pytest

from flexcore.engine.render import (
    Answer,
    Query,
    Rendered,
    Unanswered,
    as_text,
    is_truthy,
    query,
    refused,
    render,
    resolve_path,
)
from flexcore.language.expressions import compile_template
from flexcore.model.execution import SecretText
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.template import Expression, Position, Template

NAMES: dict[str, Any] = {
    "input": {"rows": [{"id": 7}, {"id": 8}], "name": "né😀", "length": 3, "none": None, "zero": 0, "__proto__": 1},
    "results": {"fetch": {"ok": True}, "load": 1},
}


def template(value: Any) -> Template:
    compiled, problems = compile_template(value, locate=lambda _: Position(), allow_secrets=True)
    assert problems == []
    return compiled


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("input", "rows", 1, "id"), 8),
        (("input", "rows", "1", "id"), 8),
        (("input", "rows", "01"), None),
        (("input", "rows", 2, "id"), None),
        (("input", "rows", "length"), 2),
        (("input", "name", "length"), 4),
        (("input", "name", 1), "é"),
        (("input", "name", 2), None),
        (("input", "length"), 3),
        (("input", "none", "deeper", "still"), None),
        (("input", "zero", "length"), None),
        (("input", "rows", "map"), None),
        (("input", "constructor"), None),
        (("input", "__proto__"), 1),
        (("nothing", "x"), None),
    ],
)
def test_paths_have_javascripts_meaning(path: tuple[str | int, ...], value: Any) -> None:
    assert resolve_path(path, NAMES) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        ("a", "a"),
        ([1, {"a": None}], '[1,{"a":null}]'),
    ],
)
def test_values_read_as_javascript_prints_them(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_a_whole_hole_keeps_its_type_and_text_around_makes_text() -> None:
    rendered = render(template({"a": "${{ input.rows }}", "b": "n=${{ input.rows.length }}!", "c": 1}), NAMES, {})

    assert rendered == Rendered(value={"a": [{"id": 7}, {"id": 8}], "b": "n=2!", "c": 1})


def test_everything_that_needs_javascript_is_asked_for_at_once() -> None:
    holes = template(["${{ input.a + 1 }}", "x${{ input.b + 1 }}", "${{ input.a + 1 }}", "${{ input.rows }}"])

    unanswered = render(holes, NAMES, {})

    assert isinstance(unanswered, Unanswered)
    assert [each.source for each in unanswered.expressions] == ["input.a + 1", "input.b + 1"]


def test_answers_fill_the_holes() -> None:
    answers = {"input.a + 1": Answer(value=None), "input.b + 1": Answer(value=2)}

    rendered = render(template(["${{ input.a + 1 }}", "x${{ input.b + 1 }}"]), NAMES, answers)

    assert rendered == Rendered(value=[None, "x2"])


def test_a_failed_answer_is_the_failure_of_the_whole() -> None:
    failed = refused("input.a()", "TypeError: not a function", name="TypeError")

    rendered = render(template(["${{ input.a() }}"]), NAMES, {"input.a()": failed})

    assert isinstance(rendered, Failure)
    assert rendered.error_class is ErrorClass.USER
    assert rendered.message == "the expression `input.a()` failed: TypeError: not a function"


def test_secrets_stay_references_with_their_places() -> None:
    rendered = render(
        template({"h": ["Bearer ${{ secrets.T }} ${{ input.zero }}"], "b": "$${{ secrets.T }}"}), NAMES, {}
    )

    assert rendered == Rendered(
        value={"h": ["Bearer ${{ secrets.T }} 0"], "b": "${{ secrets.T }}"},
        secrets=(
            SecretText(pointer=("h", 0), parts=(("text", "Bearer "), ("secret", "T"), ("text", " "), ("text", "0"))),
        ),
    )


def test_a_query_sends_only_what_the_expression_reads() -> None:
    named = Expression(source="results.load + 1", reads=(("results", "load"),))
    computed = Expression(source="results[input.x]", reads=(("results",), ("input",)))

    assert query(named, NAMES) == Query("results.load + 1", {"results": {"load": 1}})
    assert query(computed, NAMES).names == NAMES


@pytest.mark.parametrize(
    ("value", "truth"), [(None, False), (0, False), (0.0, False), ("", False), ("0", True), ([], True), ({}, True)]
)
def test_truth_is_javascripts(value: Any, truth: bool) -> None:
    assert is_truthy(value) is truth
