"""What a step or a workflow says about how it is run: requirements, retry, cache, environment, variables."""

import re
from dataclasses import dataclass, fields, replace
from datetime import timedelta

from flexcore.language.findings import shortened
from flexcore.language.holes import constants_of, template_of
from flexcore.language.nodes import ScalarNode, is_null
from flexcore.language.reading import Fields, Reading, word_of
from flexcore.model.failure import ErrorClass
from flexcore.model.template import Template
from flexcore.model.values import JSON
from flexcore.model.workflow import CachePolicy, Complexity, Concurrency, Requirements, RetryPolicy

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
MAX_ATTEMPTS = 1_000
MAX_AT_A_TIME = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the steps of a list take over from around it, unless they say it themselves."""

    requirements: Requirements = Requirements()
    runtime: str | None = None


def requirements_of(around: Fields, reading: Reading) -> Requirements:
    """Read `requirements`. What is not there stays None: not declared."""
    node = around.mapping("requirements")
    if node is None:
        return Requirements()
    inner = Fields(node, reading)
    requirements = Requirements(
        data_size=inner.size("data_size"),
        complexity=inner.choice("complexity", Complexity),
        cpu=inner.number("cpu", 0, 100_000),
        memory=inner.size("memory"),
        gpu=inner.number("gpu", 0, 10_000),
        disk=inner.size("disk"),
        resource_intensive=inner.boolean("resource_intensive"),
        parallelizable=inner.boolean("parallelizable"),
        containerized=inner.boolean("containerized"),
        scalable=inner.boolean("scalable"),
        deadline=inner.duration("deadline"),
        max_cost=inner.number("max_cost", 0, 1e12),
        tags=_texts(inner, "tags", reading),
        idempotent=inner.boolean("idempotent"),
    )
    inner.close()
    return requirements


def _texts(around: Fields, key: str, reading: Reading) -> tuple[str, ...]:
    texts: list[str] = []
    for node in around.items(key) or ():
        if isinstance(node, ScalarNode) and isinstance(node.value, str):
            texts.append(node.value)
        else:
            reading.wrong_type(node, f"an entry of `{key}`", "text")
    return tuple(texts)


def with_defaults(own: Requirements, defaults: Requirements) -> Requirements:
    """Fill in what a step does not declare itself."""
    missing = {each.name: getattr(defaults, each.name) for each in fields(own) if getattr(own, each.name) in (None, ())}
    return replace(own, **missing)


def retry_of(around: Fields, reading: Reading) -> RetryPolicy:
    """Read `retry`."""
    node = around.mapping("retry")
    if node is None:
        return RetryPolicy()
    inner, standard = Fields(node, reading), RetryPolicy()
    attempts = inner.integer("attempts", 1, MAX_ATTEMPTS)
    delay = _or(inner.duration("delay", zero=True), standard.delay)
    factor = inner.number("factor", 1, 1_000)
    longest = inner.duration("max_delay", zero=True)
    jitter = inner.number("jitter", 0, 1)
    classes = [word_of(each, ErrorClass, reading, "an entry of `on`") for each in inner.items("on") or ()]
    inner.close()
    return RetryPolicy(
        attempts=attempts or standard.attempts,
        delay=delay,
        factor=standard.factor if factor is None else factor,
        max_delay=_or(longest, max(standard.max_delay, delay)),
        jitter=standard.jitter if jitter is None else jitter,
        on=tuple(dict.fromkeys(each for each in classes if each is not None)),
    )


def _or(given: timedelta | None, standard: timedelta) -> timedelta:
    return standard if given is None else given


def cache_of(around: Fields, reading: Reading) -> CachePolicy | None:
    """Read `cache`."""
    node = around.mapping("cache")
    if node is None:
        return None
    inner = Fields(node, reading)
    inner.node("ttl", required=True)
    ttl = inner.duration("ttl")
    key = inner.node("key")
    template = template_of(key, reading) if key is not None else None
    inner.close()
    return CachePolicy(ttl=ttl, key=template) if ttl is not None else None


def concurrency_of(around: Fields, reading: Reading) -> Concurrency | None:
    """Read `concurrency`."""
    node = around.mapping("concurrency")
    if node is None:
        return None
    inner = Fields(node, reading)
    inner.node("limit", required=True)
    limit = inner.integer("limit", 1, MAX_AT_A_TIME)
    key = inner.node("key")
    if key is not None and not isinstance(key, ScalarNode):
        reading.wrong_type(key, "`key`", "text, a number, true, false or null")
    template = template_of(key, reading) if key is not None else None
    inner.close()
    return Concurrency(limit=limit, key=template) if limit is not None else None


def variables_of(around: Fields, reading: Reading) -> dict[str, JSON]:
    """Read `vars`: constants of any type."""
    node = around.mapping("vars")
    return constants_of(node, reading, "`vars`") if node is not None else {}


def environment_of(around: Fields, reading: Reading) -> dict[str, Template]:
    """Read `env`: names that an operating system accepts, each with text, a number, true or false."""
    node = around.mapping("env")
    environment: dict[str, Template] = {}
    for entry in node.entries if node is not None else ():
        if not _VARIABLE.fullmatch(entry.key):
            message = f"'{shortened(entry.key)}' is not a name for an environment variable"
            reading.findings.report(entry.position, message, "name", "letters, digits and _, no digit first")
        if not isinstance(entry.value, ScalarNode) or is_null(entry.value):
            reading.wrong_type(entry.value, f"`{shortened(entry.key)}`", "text")
            continue
        environment[entry.key] = template_of(entry.value, reading)
    return environment


def labels_of(around: Fields, reading: Reading) -> dict[str, str]:
    """Read `labels`: text by text."""
    node = around.mapping("labels")
    labels: dict[str, str] = {}
    for entry in node.entries if node is not None else ():
        if isinstance(entry.value, ScalarNode) and isinstance(entry.value.value, str):
            labels[entry.key] = entry.value.value
        else:
            reading.wrong_type(entry.value, f"`{shortened(entry.key)}`", "text", "put it in quotes")
    return labels
