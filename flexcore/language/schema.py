"""The native format as a JSON Schema (draft 2020-12), for editors: completion, descriptions, first checks.

It says less than the parser, which alone decides: names, order and expressions are beyond JSON Schema.
"""

from collections.abc import Mapping

from flexcore.language.steps import KINDS
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import STEP_ID, WORKFLOW_NAME
from flexcore.model.values import JSON
from flexcore.model.workflow import Complexity, OnError, StepKind

Schema = dict[str, JSON]

_KIND_OF_PARAMETERS = {
    "python": "`main(**args)` of `script` or `file`; its return value is the result.",
    "bash": "`script` or `file`, with `args` as $1…; the last line of output is the result when it is JSON.",
    "sql": "`script` or `file` against `connection`; gives {rows, row_count}.",
    "function": "A function with @flexcore.task: {name: module:function, args}.",
    "http": "One request: {method, url, headers, query, json | body, timeout, expect}.",
    "singer": "A tap into a target: {project, tap(s), target(s), config, select, state, full_refresh, install}.",
    "dbt": "A dbt command: {project, command, select, vars, target}.",
    "meltano": "A Meltano command: {project, args}.",
    "container": "A container: {image, command, args, env, mounts, namespace}.",
    "kubernetes": "A Job from {manifest, namespace}, or objects that stay from {apply, wait, namespace}.",
    "ray": "A Ray job: {entrypoint, runtime_env}.",
    "transform": "A value computed by the engine: {value}.",
    "workflow": "Another workflow as an execution of its own: {name, input, wait}.",
    "wait": "A pause: {for: 10m} or {until: 2026-12-01T00:00:00Z}.",
}


def workflow_schema() -> Schema:
    """Give the schema. A new value each time: the caller may change it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "FlexCore workflow",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "steps"],
        "properties": {
            "name": _described({"type": "string", "pattern": f"^{WORKFLOW_NAME.pattern}$"}, "The workflow's name."),
            "description": _text("What it is for."),
            "inputs": _described(
                {"$ref": "https://json-schema.org/draft/2020-12/schema"}, "JSON Schema of the input, an object."
            ),
            "vars": _described({"type": "object"}, "Constants, read as vars.NAME."),
            "env": _reference("environment", "Defaults for every step's environment, read as env.NAME."),
            "requirements": _reference("requirements", "Defaults for every task's requirements."),
            "timeout": _reference("duration", "The longest an execution may take."),
            "concurrency": _reference("concurrency", "How many executions may run at a time; the others wait."),
            "deadline": _reference("duration", "Default for requirements.deadline of every task."),
            "steps": _reference("steps", "What is done, in this order unless a step says `needs`."),
            "on_failure": _reference("steps", "Done once when the execution failed; `error` says why."),
            "output": _described({}, "The result: any value, with ${{ … }} in it."),
            "labels": _described({"type": "object", "additionalProperties": {"type": "string"}}, "Free labels."),
        },
        "$defs": _definitions(),
    }


def _definitions() -> Schema:
    return {
        "duration": _described(
            {"anyOf": [{"type": "string"}, {"type": "number", "minimum": 0}]},
            "A duration such as 30s, 5m, 1h30m, 500ms; a number is seconds.",
        ),
        "size": _described(
            {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]},
            "A size such as 10GB (10·10⁹ bytes) or 512MiB; a number is bytes.",
        ),
        "condition": _described(
            {"anyOf": [{"type": "string", "pattern": r"\$\{\{"}, {"type": "boolean"}]},
            "One JavaScript expression: ${{ … }}.",
        ),
        "environment": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        "requirements": _requirements(),
        "retry": _retry(),
        "cache": _closed(
            {"ttl": _reference("duration", "How long."), "key": _described({}, "Default: all parameters.")}, ["ttl"]
        ),
        "concurrency": _closed(
            {
                "limit": _described({"type": "integer", "minimum": 1}, "At most so many at a time."),
                "key": _described({}, "Counted apart for each value of this."),
            },
            ["limit"],
        ),
        "on_error": _words([each.value for each in OnError], "What a failure does after its retries."),
        "steps": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}},
        "step": _step(),
    }


def _step() -> Schema:
    return {
        "type": "object",
        "required": ["id", "type"],
        "properties": {**_common(), "with": {}},
        "allOf": [
            *({"if": _of_type(kind), "then": _task(kind)} for kind in _KIND_OF_PARAMETERS),
            *({"if": _of_type(kind), "then": then} for kind, then in _controls().items()),
        ],
        "unevaluatedProperties": False,
    }


def _common() -> Schema:
    return {
        "id": _described(
            {"type": "string", "pattern": f"^{STEP_ID.pattern}$"}, "Unique in the workflow; read as results.ID."
        ),
        "type": _words(list(KINDS), "The kind of step."),
        "needs": _described(
            {"type": ["array", "null"], "items": {"type": "string"}},
            "Steps of the same list that come before; [] starts at once; default: the one before.",
        ),
        "if": _reference("condition", "The step is skipped, its result null, when this is false."),
        "retry": _reference("retry", "How often it is tried again."),
        "timeout": _reference("duration", "The longest one attempt may take."),
        "cache": _reference("cache", "Reuse an earlier success."),
        "concurrency": _reference("concurrency", "How many attempts may be under way at a time; the others wait."),
        "on_error": _reference("on_error", "`continue` makes a failure the result {error: …}."),
        "runtime": _text("The name of a runtime, or auto (default)."),
        "requirements": _reference("requirements", "What the step needs of a place."),
        "vars": _described({"type": "object"}, "Constants for this step."),
        "env": _reference("environment", "Environment of this step."),
    }


def _of_type(kind: str) -> Schema:
    return {"required": ["type"], "properties": {"type": {"const": kind}}}


def _task(kind: str) -> Schema:
    optional = kind in {each.value for each in StepKind}
    with_ = _described({"type": ["object", "null"] if optional else "object"}, _KIND_OF_PARAMETERS[kind])
    return {"properties": {"with": with_}, "required": [] if optional else ["with"]}


def _controls() -> Mapping[str, Schema]:
    steps = _reference("steps", "The steps inside.")
    condition = _reference("condition", "When.")
    case = _closed({"if": condition, "steps": steps}, ["if", "steps"])
    branch = _closed(
        {"id": _text("Its name."), "on_error": {"$ref": "#/$defs/on_error"}, "steps": steps}, ["id", "steps"]
    )
    return {
        "branch": _open({"branches": _list_of(case), "default": steps}, ["branches"]),
        "parallel": _open({"branches": _list_of(branch)}, ["branches"]),
        "foreach": _open(
            {
                "items": _described({"type": ["array", "string"]}, "A list, or ${{ … }}."),
                "parallelism": _described({"type": "integer", "minimum": 1}, "How many at a time; default 1."),
                "steps": steps,
            },
            ["items", "steps"],
        ),
        "while": _open(
            {
                "condition": condition,
                "max_iterations": _described({"type": "integer", "minimum": 1}, "Default 1,000."),
                "steps": steps,
            },
            ["condition", "steps"],
        ),
        "try": _open({"steps": steps, "catch": steps, "finally": steps}, ["steps"]),
    }


def _requirements() -> Schema:
    size: Schema = {"$ref": "#/$defs/size"}
    number: Schema = {"type": "number", "minimum": 0}
    flag: Schema = {"type": "boolean"}
    return _closed(
        {
            "data_size": _described(size, "Bytes that the step reads."),
            "complexity": _words([each.value for each in Complexity], "How demanding the computation is."),
            "cpu": _described(number, "Cores."),
            "memory": _described(size, "Memory."),
            "gpu": _described(number, "GPUs."),
            "disk": _described(size, "Scratch space."),
            "resource_intensive": flag,
            "parallelizable": flag,
            "containerized": flag,
            "scalable": flag,
            "deadline": _reference("duration", "When it should have ended."),
            "max_cost": _described(number, "In the currency of prices."),
            "tags": {"type": "array", "items": {"type": "string"}},
            "idempotent": flag,
        }
    )


def _retry() -> Schema:
    return _closed(
        {
            "attempts": _described({"type": "integer", "minimum": 1}, "Tries in all, the first one too."),
            "delay": _reference("duration", "The pause before the second try."),
            "factor": _described({"type": "number", "minimum": 1}, "How the pause grows."),
            "max_delay": _reference("duration", "The longest pause."),
            "jitter": _described({"type": "number", "minimum": 0, "maximum": 1}, "Random part of the pause."),
            "on": _described(
                {"type": "array", "items": {"enum": [each.value for each in ErrorClass]}}, "Only these classes."
            ),
        }
    )


def _open(properties: Mapping[str, JSON], required: list[JSON]) -> Schema:
    return {"properties": properties, "required": required}


def _closed(properties: Mapping[str, JSON], required: list[JSON] | None = None) -> Schema:
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**schema, "required": required} if required else schema


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _described(schema: Mapping[str, JSON], description: str) -> Schema:
    return {**schema, "description": description}


def _reference(name: str, description: str) -> Schema:
    return {"$ref": f"#/$defs/{name}", "description": description}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _words(words: list[JSON], description: str) -> Schema:
    return {"enum": words, "description": description}
