"""The format of test files as a JSON Schema (draft 2020-12), for editors. The reader, which decides, knows more."""

from collections.abc import Mapping

from flexcore.model.failure import ErrorClass
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.values import JSON
from flexcore.runtime.interface import Health

Schema = dict[str, JSON]

_DURATION: Schema = {"type": ["string", "number"], "description": "Such as 30s, 5m or 1h30m, or seconds."}
_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_STATES: Schema = {"type": "object", "additionalProperties": {"enum": [each.value for each in Health]}}
_CLASS: Schema = {"enum": [each.value for each in ErrorClass]}


def workflow_test_schema() -> Schema:
    """Give the schema of `test.yaml` and `NAME.test.yaml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tests of a FlexCore workflow",
        **_closed(
            {
                "workflow": _said(_TEXT, "The workflow file; by default the one that this file's name goes with."),
                "tests": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/test"}},
            },
            ["tests"],
        ),
        "$defs": {"test": _test(), "mock": _mock(), "expect": _expect(), "step": _step(), "error": _error()},
    }


def _test() -> Schema:
    mock: Schema = {"$ref": "#/$defs/mock"}
    replies: Schema = {"oneOf": [mock, {"type": "array", "minItems": 1, "items": mock}]}
    names: Schema = {"type": "array", "items": _TEXT}
    return _closed(
        {
            "name": _said(_TEXT, "What it shows; unique in the file."),
            "input": _said({}, "The input of the execution."),
            "secrets": _said(_TEXTS, "Plain values, for this test only."),
            "env": _said(_TEXTS, "Entries of the workflow's `env`, in place of its own."),
            "runtimes": _said(
                {"oneOf": [names, _STATES]}, "Which runtimes are there; by default one of each kind a step may need."
            ),
            "health": _said(_STATES, "The health of runtimes; by default up."),
            "start": _said(_TEXT, "When virtual time begins; by default 2026-01-01T00:00:00Z."),
            "mocks": _said(
                {"type": "object", "additionalProperties": replies},
                "What each step comes to, by its path; a list has one reply per attempt, the last repeats.",
            ),
            "expect": {"$ref": "#/$defs/expect"},
        },
        ["name"],
    )


def _mock() -> Schema:
    error = _closed(
        {"class": _CLASS, "message": _TEXT, "name": _TEXT, "hint": _TEXT, "retry_after": _DURATION},
    )
    return {
        **_closed(
            {
                "result": _said({}, "The step's result."),
                "error": _said(error, "How the attempt fails; class is `user` by default."),
                "takes": _said(_DURATION, "How long the attempt takes, in virtual time."),
                "optional": _said({"type": "boolean"}, "It is no failure of the test if nobody needs it."),
            }
        ),
        "oneOf": [{"required": ["result"]}, {"required": ["error"]}],
    }


def _expect() -> Schema:
    return _closed(
        {
            "status": {"enum": [each.value for each in ExecutionStatus]},
            "output": _said({}, "The output, exactly."),
            "output_contains": _said({}, "Part of the output."),
            "path": _said({"type": "array", "items": _TEXT}, "The steps that ran, in the order they ended."),
            "steps": {"type": "object", "additionalProperties": {"$ref": "#/$defs/step"}},
            "placements": _said(_TEXTS, "The runtime of steps."),
            "error": {"$ref": "#/$defs/error"},
            "duration": _said(_DURATION, "How long the execution took, in virtual time."),
        }
    )


def _step() -> Schema:
    return _closed(
        {
            "status": {"enum": [each.value for each in StepStatus]},
            "attempts": {"type": "integer", "minimum": 0},
            "runtime": _TEXT,
            "result": {},
            "result_contains": {},
            "parameters": _said({}, "What `with` came to; secrets stand as their references."),
            "parameters_contains": {},
            "error": {"$ref": "#/$defs/error"},
            "skipped_reason_contains": _TEXT,
            "duration": _DURATION,
        }
    )


def _error() -> Schema:
    return _closed({"step": _TEXT, "class": _CLASS, "name": _TEXT, "message": _TEXT, "message_contains": _TEXT})


def _closed(properties: Mapping[str, JSON], required: list[JSON] | None = None) -> Schema:
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**schema, "required": required} if required else schema


def _said(schema: Mapping[str, JSON], description: str) -> Schema:
    return {**schema, "description": description}
