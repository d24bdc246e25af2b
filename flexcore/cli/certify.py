"""`flexcore runtime test`: holds the conformance kit against a configured runtime and tells what it found.

The runtime is examined bare, with its own settings, in a folder that goes away again; no store is opened. Must be
loaded for this command alone: it brings the kit.
"""

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from pydantic import BaseModel

from flexcore.cli.options import Options
from flexcore.cli.render import clean, emit, painted, say, seconds
from flexcore.cli.session import run, settings_of, tell_on_stderr
from flexcore.model.errors import InvalidRequest, InvalidSettings, NotFound, RuntimeUnavailable
from flexcore.model.requests import Document
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Health
from flexcore.runtime.plugin import RuntimePlugin
from flexcore.runtime.registry import Registry, RuntimeSettings
from flexcore.testing.factories import runtime_context
from flexcore.testing.runtime_harness import Harness
from flexcore.testing.runtime_processes import BashHarness, Subject
from flexcore.testing.runtime_suite import CHECKS, Check, Finding, Verdict, findings

_HEADINGS = {
    Verdict.FAILED: "failed",
    Verdict.REFUSED: "refused as declared",
    Verdict.EXEMPT: "not asked of this kind of step",
}


def certify(options: Options, name: str, pattern: str) -> bool:
    """Examine a runtime by the checks whose names match; True when none failed."""
    if options.server:
        raise InvalidRequest("a runtime is tested from the machine it is configured on", hint="leave out --server")
    checks = [check for check in CHECKS if fnmatch(check.name, pattern)]
    if not checks:
        raise NotFound(f"no check is called {pattern!r}", hint=f"checks: {', '.join(map(str, CHECKS))}")
    tell_on_stderr("error")
    with tempfile.TemporaryDirectory(prefix="flexcore-test-") as folder:
        instances = _instances(options)
        registry = Registry(instances, runtime_context(Path(folder)))
        run(lambda: _must_answer(registry, name))
        plugin, config = _configured(registry, instances, name)
        found = run(lambda: _examined(plugin, config, Path(folder), checks))
    emit(options, _document(name, plugin, found), _report(name, plugin, found))
    return all(each.verdict is not Verdict.FAILED for each in found)


async def _examined(plugin: RuntimePlugin, config: BaseModel, folder: Path, checks: Sequence[Check]) -> list[Finding]:
    make = harness_of(plugin)
    shared = folder / "shared"
    number = iter(range(1, len(checks) + 1))

    def harness() -> Harness:
        return make(Subject(plugin=plugin, config=config, folder=folder / f"check-{next(number)}", shared=shared))

    found: list[Finding] = []
    async for each in findings(harness, checks):
        found.append(each)
        say(f"[{len(found):{len(str(len(checks)))}}/{len(checks)}] {each.verdict:7} {each.check}  {_took(each)}")
    return found


def _instances(options: Options) -> list[RuntimeSettings]:
    return [
        RuntimeSettings(name=each, type=found.type, options=found.options)
        for each, found in settings_of(options).runtimes.items()
    ]


def _configured(registry: Registry, instances: Sequence[RuntimeSettings], name: str) -> tuple[RuntimePlugin, BaseModel]:
    """Give the plug-in of an instance and its configuration."""
    plugin = registry.plugin(name)
    given = next(each.options for each in instances if each.name == name)
    return plugin, plugin.config.model_validate(dict(given))


async def _must_answer(registry: Registry, name: str) -> None:
    """Ask a runtime how it is: of one that is down, every check would say the same. Raises RuntimeUnavailable."""
    try:
        found = await registry.get(name).health()
        if found.state is Health.DOWN:
            hint = await registry.advice(name)
            raise RuntimeUnavailable(f"runtime {name!r} is down: {found.reason}", hint=hint)
    finally:
        await registry.close()


def harness_of(plugin: RuntimePlugin) -> Callable[[Subject], Harness]:
    """Give what makes a harness for runtimes of this kind. Raises InvalidRequest or InvalidSettings."""
    if plugin.certify is None:
        if StepKind.BASH not in plugin.parameters:
            raise InvalidRequest(
                f"the kit cannot tell a runtime of type {plugin.kind!r} what to do: it runs no bash steps",
                hint="name a harness in the plug-in: RuntimePlugin(certify='module:factory')",
            )
        return BashHarness
    module, _, factory = plugin.certify.partition(":")
    try:
        made: Callable[[Subject], Harness] = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        message = f"the harness {plugin.certify!r} of plug-in {plugin.kind!r} cannot be loaded: {error}"
        raise InvalidSettings(message, hint="`certify` is `module:factory`") from error
    return made


def _document(name: str, plugin: RuntimePlugin, found: Sequence[Finding]) -> Document:
    return {
        "runtime": name,
        "type": plugin.kind,
        "passed": all(each.verdict is not Verdict.FAILED for each in found),
        "counts": _counts(found),
        "checks": [
            {
                "name": each.check.name,
                "theme": each.check.theme,
                "verdict": each.verdict.value,
                "why": each.check.why,
                "seen": each.seen,
                "reasons": dict(each.reasons),
                "seconds": round(each.seconds, 3),
            }
            for each in found
        ],
    }


def _counts(found: Sequence[Finding]) -> dict[str, int]:
    return {verdict.value: sum(each.verdict is verdict for each in found) for verdict in Verdict}


def _report(name: str, plugin: RuntimePlugin, found: Sequence[Finding]) -> Iterator[str]:
    for verdict, heading in _HEADINGS.items():
        these = [each for each in found if each.verdict is verdict]
        if these:
            yield f"{painted(heading)}:"
        for each in these:
            yield f"  {each.check}: {each.check.why}"
            yield from (f"    {clean(line)}" for line in _details(each))
    counts = ", ".join(f"{count} {verdict}" for verdict, count in _counts(found).items() if count)
    took = seconds(sum(each.seconds for each in found))
    yield f"runtime {name!r} of type {plugin.kind}: {len(found)} checks in {took}: {counts}"


def _details(finding: Finding) -> list[str]:
    seen = [f"seen: {finding.seen}"] if finding.seen else []
    return [*seen, *(f"{subject}: {reason}" for subject, reason in finding.reasons.items())]


def _took(finding: Finding) -> str:
    return "" if finding.verdict is Verdict.EXEMPT else seconds(finding.seconds)
