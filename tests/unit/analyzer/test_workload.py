"""Every value of a workload says where it comes from; reading code never fails."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexcore.analyzer.predict import Model
from flexcore.analyzer.rules import DEFAULT_THRESHOLDS
from flexcore.analyzer.view import Facts, Measured, Source, StepView
from flexcore.analyzer.workload import analyse, facts, summary
from flexcore.model.workflow import Complexity, Requirements, StepKind


@pytest.mark.parametrize(
    ("declared", "measured", "learned", "value", "source"),
    [
        (1, 2, 3, 1, "declared"),
        (None, 2, 3, 2, "measured"),
        (None, 0, 3, 0, "measured"),
        (None, None, 3, 3, "learned"),
        (None, None, None, None, "unknown"),
    ],
)
def test_the_size_comes_from_the_most_trusted_source(
    declared: int | None, measured: int | None, learned: int | None, value: int | None, source: str
) -> None:
    data = Measured() if measured is None else Measured(measured, Source.MEASURED)
    step = StepView(kind=StepKind.PYTHON, requirements=Requirements(data_size=declared), data=data)

    analysis = analyse(step, DEFAULT_THRESHOLDS, learned)

    assert analysis.entries["data_size"] == {"value": value, "source": source}
    assert analysis.load.data_size == value


def test_times_are_compared_by_the_measured_size() -> None:
    step = StepView(kind=StepKind.PYTHON, requirements=Requirements(data_size=1), data=Measured(2, Source.MEASURED))

    assert analyse(step, DEFAULT_THRESHOLDS).input_bytes == 2


@pytest.mark.parametrize(
    ("code", "complexity", "because"),
    [
        ("import sklearn.linear_model", Complexity.ML, ("imports sklearn",)),
        ("def main():\n    from torch import nn\n", Complexity.ML, ("imports torch",)),
        ("import pandas as pd, os", Complexity.MODERATE, ("imports pandas",)),
        ("import json\nfrom . import torch", None, ()),
        ("text = 'import torch'", None, ()),
        ("this is no Python\nimport torch\n", Complexity.ML, ("imports torch",)),
        ("", None, ()),
    ],
)
def test_complexity_is_inferred_from_imports(
    code: str, complexity: Complexity | None, because: tuple[str, ...]
) -> None:
    found = facts(StepKind.PYTHON, code)

    assert (found.complexity, found.because) == (complexity, because)


def test_packages_images_and_loops_speak_too() -> None:
    assert facts(StepKind.BASH, "echo", ["Scikit_Learn==1.4 ; python_version > '3'"]).complexity is Complexity.ML
    assert facts(StepKind.CONTAINER, image="docker.example/pytorch:2").complexity is Complexity.ML
    assert facts(StepKind.PYTHON, width=4) == Facts(parallelizable=True, because=("in a loop of width 4",), width=4)
    assert facts(StepKind.PYTHON, width=1).parallelizable is None


def test_what_is_declared_is_not_inferred() -> None:
    step = StepView(
        kind=StepKind.PYTHON,
        requirements=Requirements(complexity=Complexity.SIMPLE, parallelizable=False),
        facts=facts(StepKind.PYTHON, "import torch", width=9),
    )
    analysis = analyse(step, DEFAULT_THRESHOLDS)

    assert analysis.entries["complexity"] == {"value": "simple", "source": "declared"}
    assert analysis.entries["parallelizable"] == {"value": False, "source": "declared"}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda each: each.decode("latin-1")), st.lists(st.text()))
def test_reading_code_never_fails(code: str, packages: list[str]) -> None:
    facts(StepKind.PYTHON, code, packages, code)


@pytest.mark.parametrize("code", ["(" * 100_000, "x" * 3_000_000, "\0", "-" * 50_000 + "1", "import " + "a." * 9999])
def test_hostile_code_is_read_in_bounded_time(code: str) -> None:
    facts(StepKind.PYTHON, code)


def test_a_workflow_is_summed_up() -> None:
    steps = [
        StepView(kind=StepKind.PYTHON, requirements=Requirements(data_size=5, cpu=2)),
        StepView(kind=StepKind.BASH, requirements=Requirements(cpu=16), data=Measured(7, Source.MEASURED)),
        StepView(kind=StepKind.PYTHON, facts=facts(StepKind.PYTHON, "import torch")),
    ]

    found = summary(steps, Model(), DEFAULT_THRESHOLDS)

    assert found["data_size"] == {"value": 12, "sources": ["declared", "measured"], "unknown": 1}
    assert found["cpu"] == {"value": 16, "sources": ["declared"], "unknown": 1}
    assert found["resource_intensive"] == {"value": True, "sources": ["inferred"], "unknown": 1}
    assert (found["steps"], found["kinds"], found["machine_learning"]) == (3, ["bash", "python"], 1)
