"""The native format: YAML or JSON text → Workflow, or everything that is wrong with it at once.

Never runs, opens or imports anything that a file names; what exists beside the file is told by a callable.
"""

import hashlib
from collections.abc import Callable, Mapping

from flexcore.language.document import compose
from flexcore.language.findings import Findings, shortened
from flexcore.language.holes import template_of
from flexcore.language.inputs import inputs_of
from flexcore.language.nodes import MapNode, Node, is_null, kind_of, plain
from flexcore.language.parameters import files_named
from flexcore.language.policies import (
    Defaults,
    concurrency_of,
    environment_of,
    labels_of,
    requirements_of,
    variables_of,
    with_defaults,
)
from flexcore.language.reading import Fields, Reading
from flexcore.language.steps import steps_of
from flexcore.language.visibility import check_names, steps_in
from flexcore.model.errors import Diagnostic, InvalidDefinition
from flexcore.model.ids import WORKFLOW_NAME
from flexcore.model.template import Position
from flexcore.model.values import JSON, canonical
from flexcore.model.workflow import Requirements, StepKind, Task, VersionHash, Workflow

_LATER_KEYS = frozenset({"triggers", "preprocess"})
_START = Position(line=1, column=1)


def parse(
    text: str | bytes,
    file_name: str,
    *,
    task_parameters: Mapping[StepKind, Mapping[str, JSON]] | None = None,
    files: Callable[[str], bool] | None = None,
) -> Workflow:
    """Read a workflow. Raises InvalidDefinition with every problem, sorted by position.

    `task_parameters` has the JSON Schema of `with` for the kinds whose runtimes are known; without one, `with` only
    has to be a mapping. `files` tells whether a relative path, file or folder, exists beside the workflow file;
    without it, that is not checked. The version covers the text alone: see `version_of`.
    """
    workflow, problems = check(text, file_name, task_parameters=task_parameters, files=files)
    if workflow is None:
        raise InvalidDefinition(problems)
    return workflow


def check(
    text: str | bytes,
    file_name: str,
    *,
    task_parameters: Mapping[StepKind, Mapping[str, JSON]] | None = None,
    files: Callable[[str], bool] | None = None,
) -> tuple[Workflow | None, list[Diagnostic]]:
    """Read a workflow as `parse` does; give it, or None and the problems."""
    findings = Findings(file_name)
    root, source = _root(text, findings)
    if root is None:
        return None, findings.sorted()
    reading = Reading(findings=findings, source=source, task_parameters=task_parameters or {}, files=files)
    workflow = _workflow(root, reading)
    check_names(workflow, findings, reading.needs_positions)
    problems = findings.sorted()
    return (None if problems else workflow), problems


def named_files(workflow: Workflow) -> tuple[str, ...]:
    """Give the relative path of every `file:` and of every `project:` folder, in normal form, each once, sorted.

    A `project` without a slash or leading dot is the name of one in the settings and not listed.
    """
    tasks = (step.action for step in steps_in(workflow) if isinstance(step.action, Task))
    return tuple(sorted({name for task in tasks for name in files_named(task)}))


def version_of(text: str | bytes, files: Mapping[str, str] | None = None) -> VersionHash:
    """Name a version by its content: the document, however it is formatted, and the digest of each of its files.

    `files` has digests by relative path. Raises InvalidDefinition when the text is not a document at all.
    """
    findings = Findings("")
    root, _ = _root(text, findings)
    if root is None:
        raise InvalidDefinition(findings.sorted())
    return _hash(root, files or {})


def _hash(root: Node, files: Mapping[str, str]) -> VersionHash:
    content = canonical({"document": plain(root), "files": dict(files)})
    return VersionHash(f"v-{hashlib.sha256(content).hexdigest()[:16]}")


def _root(text: str | bytes, findings: Findings) -> tuple[MapNode | None, str]:
    node, source = compose(text, findings)
    if isinstance(node, MapNode):
        return node, source
    if node is not None and not is_null(node):
        message = f"a workflow is a mapping, but this is {kind_of(node)}"
        findings.report(node.position, message, "wrong-type", "it starts with `name: …` and `steps: …`")
    elif not findings.sorted():
        findings.report(_START, "the file is empty", "empty-file", "a workflow has a `name` and `steps`")
    return None, source


def _workflow(root: MapNode, reading: Reading) -> Workflow:
    written = Fields(root, reading)
    requirements = _requirements(written, reading)
    defaults = Defaults(requirements=requirements)
    output = written.entry("output")
    steps = written.entry("steps")
    if steps is None:
        reading.findings.report(written.position, "`steps` is missing", "empty-steps", "a workflow has steps")
    workflow = Workflow(
        name=_name(written, reading),
        description=written.text("description") or "",
        inputs=inputs_of(written, reading),
        vars=variables_of(written, reading),
        env=environment_of(written, reading),
        requirements=requirements,
        timeout=written.duration("timeout"),
        concurrency=concurrency_of(written, reading),
        labels=labels_of(written, reading),
        steps=steps_of(steps, reading, defaults),
        on_failure=steps_of(written.entry("on_failure"), reading, defaults),
        output=template_of(output.value, reading) if output is not None and not is_null(output.value) else None,
        version=_hash(root, {}),
    )
    written.close(later=_LATER_KEYS, elsewhere={"env_vars": "did you mean 'env'?", "input": "did you mean 'inputs'?"})
    return workflow


def _requirements(written: Fields, reading: Reading) -> Requirements:
    deadline = written.duration("deadline")
    return with_defaults(requirements_of(written, reading), Requirements(deadline=deadline))


def _name(written: Fields, reading: Reading) -> str:
    name = written.text("name", required=True)
    entry = written.entry("name")
    if name is not None and entry is not None and not WORKFLOW_NAME.fullmatch(name):
        message = f"'{shortened(name)}' is not a name for a workflow"
        hint = "lower case letters, digits, _ and -, a letter first, at most 63"
        reading.findings.report(entry.value.position, message, "bad-name", hint)
    return name or ""
