"""Naming steps in a workflow's test."""

import pytest

from flexcore.language.native import parse
from flexcore.model.graph import build
from flexcore.testing.workflow.addresses import Addresses, places_in

WORKFLOW = """
name: nested
steps:
  - {id: extract, type: bash, with: {script: "true"}}
  - id: fan
    type: foreach
    items: [1, 2]
    steps:
      - id: inner
        type: foreach
        items: [1]
        steps: [{id: score, type: bash, with: {script: "true"}}]
  - id: pick
    type: branch
    branches:
      - {if: "${{ true }}", steps: [{id: first, type: bash, with: {script: "true"}}]}
      - {if: "${{ true }}", steps: [{id: second, type: bash, with: {script: "true"}}]}
    default: [{id: other, type: bash, with: {script: "true"}}]
on_failure: [{id: tell, type: bash, with: {script: "true"}}]
"""
ADDRESSES = Addresses(places_in(build(parse(WORKFLOW, "workflow.yaml"))))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("extract", "extract"),
        ("fan.inner.score", "fan[1].inner[0].score"),
        ("fan[1].inner.score", "fan[1].inner[0].score"),
        ("fan[*].inner[0].score", "fan[7].inner[0].score"),
        ("score", "fan[1].inner[0].score"),
        ("pick[1].second", "pick[1].second"),
        ("second", "pick[1].second"),
        ("pick.default.other", "pick.default.other"),
        ("on_failure.tell", "on_failure.tell"),
    ],
)
def test_an_address_covers_the_step_it_means(text: str, path: str) -> None:
    found = ADDRESSES.find(text)

    assert found is not None
    assert found[0].covers(path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("fan[0].inner.score", "fan[1].inner[0].score"),
        ("fan.inner", "fan[1].inner[0].score"),
        ("extract", "child.extract"),
        ("pick[0].first", "pick[1].second"),
    ],
)
def test_an_address_covers_no_other_step(text: str, path: str) -> None:
    found = ADDRESSES.find(text)

    assert found is not None
    assert not found[0].covers(path)


@pytest.mark.parametrize(
    "text", ["", "nobody", "fan.score", "pick.second", "pick[2].second", "a b", "extract[0]", "fan..x"]
)
def test_what_names_no_step_is_not_understood(text: str) -> None:
    assert ADDRESSES.find(text) is None


def test_the_more_iterations_are_picked_out_the_more_exact() -> None:
    texts = ("score", "fan.inner.score", "fan[1].inner.score", "fan[1].inner[0].score")

    found = [ADDRESSES.find(text) for text in texts]

    assert [each[0].precision for each in found if each] == [-1, 0, 1, 2]
