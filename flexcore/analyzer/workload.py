"""Workload analysis: each requirement of a step gets a value and says where that comes from.

What the author declared comes first, then what was measured, then what earlier runs taught, then what can be inferred
from the code; the rest is unknown, which is never zero. Reading code never fails and never runs it.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import NamedTuple

from flexcore.analyzer.predict import Model
from flexcore.analyzer.rules import Thresholds, Workload, is_resource_intensive
from flexcore.analyzer.view import Facts, Measured, Source, StepView
from flexcore.model.values import JSON
from flexcore.model.workflow import Complexity, Requirements, StepKind

_ALWAYS = (
    "data_size",
    "complexity",
    "cpu",
    "memory",
    "gpu",
    "resource_intensive",
    "parallelizable",
    "containerized",
    "scalable",
)
_OTHERS = tuple(each.name for each in fields(Requirements) if each.name not in _ALWAYS)
_NOT_SAID = (None, ())
_ASKING = ("data_size", "cpu", "memory", "gpu", "disk", "resource_intensive", "containerized", "scalable")
_PASSED_OVER = "not acted on, as the step asks for no resources"
_UNKNOWN: Mapping[str, JSON] = {"value": None, "source": Source.UNKNOWN.value}

_LEARNING = frozenset(
    ("catboost", "flax", "jax", "keras", "lightgbm", "lightning", "pytorch_lightning", "scikit-learn", "sklearn")
) | frozenset(("pytorch-lightning", "tensorflow", "torch", "torchvision", "transformers", "xgboost"))
_TABLES = frozenset(("duckdb", "numpy", "pandas", "polars", "pyarrow", "scipy"))
_SPREADING = frozenset(("concurrent", "dask", "joblib", "mpi4py", "multiprocessing", "pyspark", "ray"))
_MODEL_IMAGES = re.compile(r"(?:^|[/_-])(?:pytorch|tensorflow|xgboost|scikit-learn|jax|huggingface)")
_IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]+([A-Za-z_]\w*)", re.MULTILINE)
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_CODE = 100_000  # characters; what is longer is read up to here


class Analysis(NamedTuple):
    """What is known of a step: the facts that the tables read, and every value with its source.

    `input_bytes` is the size that times are compared by: measured where it was, else declared.
    """

    load: Workload
    entries: Mapping[str, JSON]
    input_bytes: int | None


def facts(
    kind: StepKind, code: str = "", packages: Iterable[str] = (), image: str = "", width: int | None = None
) -> Facts:
    """Read a step without running it: its imports, packages, image and the width of the loops around it."""
    named = [f"imports {each}" for each in sorted(_imports(code))] if kind is StepKind.PYTHON and code else []
    named += [f"needs {each}" for each in sorted(_names(packages))]
    learning = [each for each in named if each.split()[1] in _LEARNING]
    learning += [f"image {image}"] if _MODEL_IMAGES.search(image) else []
    tables = [each for each in named if each.split()[1] in _TABLES]
    spreading = [each for each in named if each.split()[1] in _SPREADING]
    spreading += [f"in a loop of width {width}"] if width is not None and width > 1 else []
    return Facts(
        complexity=Complexity.ML if learning else Complexity.MODERATE if tables else None,
        parallelizable=True if spreading else None,
        because=(*(learning or tables), *spreading),
        image="" if kind is StepKind.CONTAINER else image,
        width=width,
    )


def _imports(code: str) -> set[str]:
    code = code[:_LONGEST_CODE]
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(_IMPORT.findall(code))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


def _names(packages: Iterable[str]) -> Iterator[str]:
    for each in packages:
        match = _PACKAGE.match(each.strip())
        if match:
            yield match[0].lower().replace("_", "-")


def analyse(step: StepView, thresholds: Thresholds, typical_bytes: int | None = None) -> Analysis:
    """Give every requirement its value and its source; those that no rule reads only where they are declared.

    `typical_bytes` is what earlier runs say of the size of the input.
    """
    return sized(analyse_unsized(step, thresholds), step, typical_bytes)


def analyse_unsized(step: StepView, thresholds: Thresholds) -> Analysis:
    """Analyse all but the size of the input: what is the same for all runs of a step."""
    needs, read = step.requirements, step.facts
    is_container = step.kind is StepKind.CONTAINER or bool(read.image)
    complexity = needs.complexity or read.complexity
    # An import alone is no wish for a cluster: a script that asks for nothing stays where such scripts run.
    is_acted_on = needs.complexity is not None or any(getattr(needs, name) is not None for name in _ASKING)
    load = Workload(
        kind=step.kind,
        data_size=None,
        complexity=complexity if is_acted_on else None,
        resource_intensive=is_resource_intensive(needs, thresholds),
        parallelizable=read.parallelizable if needs.parallelizable is None else needs.parallelizable,
        containerized=True if is_container else needs.containerized,
        scalable=needs.scalable,
    )
    entries = {name: _UNKNOWN if (value := getattr(needs, name)) is None else _declared(value) for name in _ALWAYS}
    if complexity is not needs.complexity:
        entries["complexity"] = _inferred(complexity, "complexity", read, () if is_acted_on else (_PASSED_OVER,))
    for name in ("resource_intensive", "parallelizable", "containerized"):
        value = getattr(load, name)
        if value is not None and value != getattr(needs, name):
            entries[name] = _inferred(value, name, read)
    entries |= {name: _declared(value) for name in _OTHERS if (value := getattr(needs, name)) not in _NOT_SAID}
    return Analysis(load, entries, None)


def sized(analysis: Analysis, step: StepView, typical_bytes: int | None) -> Analysis:
    """Put in the size."""
    size = _size(step, typical_bytes)
    if size.value is None:
        return analysis
    entries = {**analysis.entries, "data_size": {"value": size.value, "source": size.source.value}}
    kind, _, complexity, intensive, parallelizable, containerized, scalable = analysis.load
    load = Workload(kind, size.value, complexity, intensive, parallelizable, containerized, scalable)
    measured = step.data.value
    return Analysis(load, entries, step.requirements.data_size if measured is None else measured)


def _size(step: StepView, typical_bytes: int | None) -> Measured:
    if step.requirements.data_size is not None:
        return Measured(step.requirements.data_size, Source.DECLARED)
    if step.data.value is not None:
        return step.data
    return Measured() if typical_bytes is None else Measured(typical_bytes, Source.LEARNED)


def _inferred(value: object, name: str, read: Facts, note: tuple[str, ...] = ()) -> Mapping[str, JSON]:
    entry = {**_declared(value), "source": Source.INFERRED.value}
    if name in ("complexity", "parallelizable") and read.because:
        entry["because"] = [*read.because, *note]
    return entry


def _declared(value: object) -> Mapping[str, JSON]:
    match value:
        case Complexity():
            return {"value": value.value, "source": "declared"}
        case bool() | int() | float() | str():
            return {"value": value, "source": "declared"}
        case timedelta():
            return {"value": value.total_seconds(), "source": "declared"}
        case tuple():
            return {"value": [str(each) for each in value], "source": "declared"}
        case _:
            raise TypeError(f"a requirement of type {type(value).__name__} has no JSON form")


def summary(steps: Iterable[StepView], model: Model, thresholds: Thresholds) -> dict[str, JSON]:
    """Say what a whole workflow needs: the largest of each amount, the sum of the data, and how much is unknown."""
    analyses = [analyse(each, thresholds, model.typical_bytes(each.signature)) for each in steps]
    loads = [each.load for each in analyses]
    sizes = [each.data_size for each in loads if each.data_size is not None]
    return {
        "steps": len(analyses),
        "kinds": sorted({each.kind.value for each in loads}),
        "data_size": _over(analyses, "data_size", sum(sizes) if sizes else None),
        **{name: _over(analyses, name, _largest(analyses, name)) for name in ("cpu", "memory", "gpu")},
        **{
            name: _over(analyses, name, True if any(getattr(each, name) for each in loads) else None)
            for name in ("resource_intensive", "parallelizable", "containerized", "scalable")
        },
        "machine_learning": sum(entry["value"] == Complexity.ML.value for entry in _entries(analyses, "complexity")),
    }


def _entries(analyses: Iterable[Analysis], name: str) -> Iterator[Mapping[str, JSON]]:
    for each in analyses:
        entry = each.entries[name]
        assert isinstance(entry, Mapping)
        yield entry


def _largest(analyses: Iterable[Analysis], name: str) -> JSON:
    values = [entry["value"] for entry in _entries(analyses, name)]
    return max((value for value in values if isinstance(value, int | float)), default=None)


def _over(analyses: list[Analysis], name: str, value: JSON) -> Mapping[str, JSON]:
    found = [str(entry["source"]) for entry in _entries(analyses, name)]
    sources: list[JSON] = [each.value for each in Source if each.value in found and each is not Source.UNKNOWN]
    return {"value": value, "sources": sources, "unknown": found.count(Source.UNKNOWN.value)}
