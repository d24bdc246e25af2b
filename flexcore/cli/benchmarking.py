"""`flexcore runtime benchmark`: one step of a workflow on every runtime that can have it, side by side.

The step runs as what it is, pinned to each runtime in turn: as a workflow of its own, which is taken out of the list
again. What is measured teaches placement like any other run of the step.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from flexcore.cli.bundle import collect
from flexcore.cli.follow import follow
from flexcore.cli.options import Options, options_of
from flexcore.cli.parameters import json_argument, merged
from flexcore.cli.render import clean, emit, say, seconds, table
from flexcore.cli.resolve import bundle_limit, deploy_bundle, local_file
from flexcore.cli.session import with_api
from flexcore.language.document import compose
from flexcore.language.expressions import compile_template
from flexcore.language.findings import Findings
from flexcore.language.nodes import plain
from flexcore.model.errors import InvalidRequest, NoFeasibleRuntime, NotFound
from flexcore.model.ids import benchmark_name
from flexcore.model.requests import Bundle, ControlPlaneApi, Document, StartRequest
from flexcore.model.template import Expression, Position, Text
from flexcore.model.values import canonical, digest
from flexcore.model.workflow import StepKind

_TASKS = frozenset(kind.value for kind in StepKind)
_INNER = ("steps", "default", "branches", "catch", "finally", "on_failure")
_ABOUT_THE_REST = frozenset({"needs", "if", "runtime", "retry", "cache", "on_error", "concurrency"})
_ELSEWHERE = {
    "results": "results of other steps",
    "previous_result": "the result of the step before it",
    "iter": "the item of the loop around it",
    "error": "the error of another step",
}
_PHASES = ("queue_s", "start_s", "transfer_in_s", "run_s", "transfer_out_s")


@dataclass(frozen=True, slots=True)
class _Run:
    """How the step went once on a runtime."""

    runtime: str
    document: Document

    @property
    def step(self) -> Document:
        """The one step's part of the document."""
        found: Document = self.document["steps"][0]
        return found

    @property
    def has_succeeded(self) -> bool:
        return bool(self.document["status"] == "succeeded")

    @property
    def phases(self) -> Mapping[str, float]:
        phases = self.step.get("phases") or {}
        return {name: phases.get(name) or 0.0 for name in _PHASES}


def benchmark(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A workflow file.")],
    step: Annotated[str | None, typer.Option(metavar="ID", help="Which of its steps, if there are several.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="How often on each runtime.")] = 3,
    parameter: Annotated[list[str] | None, typer.Option("-p", metavar="KEY=VALUE", help="One input value.")] = None,
    parameters: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="The whole input.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Running the step several times does no harm.")] = False,
) -> None:
    """Run one step on every runtime that can have it, and compare."""
    options = options_of(context)
    path = local_file(file, Path())
    if path is None:
        raise NotFound(f"there is no workflow file {file}")
    whole = None if parameters is None else json_argument(parameters, "--parameters")
    bundle, chosen = alone(collect(path, bundle_limit(options)), step)
    if not yes and not (chosen.get("requirements") or {}).get("idempotent"):
        say(
            f"step '{chosen['id']}' runs {repeat} times on each runtime; what it changes outside, it changes each time "
            "(--yes, or `idempotent: true` in its requirements, if that does no harm)"
        )

    async def work(api: ControlPlaneApi) -> tuple[Document, list[_Run]]:
        workflow = await deploy_bundle(api, bundle, path, options)
        try:
            asked = (workflow["name"], workflow["version"], None, options.workspace)
            candidates = feasible(await api.plan(*asked))
            request = StartRequest(
                workflow=workflow["name"],
                version=workflow["version"],
                workspace=options.workspace,
                input=merged(whole, parameter or [], json.loads(bundle.text).get("inputs")),
            )
            runs = await _runs(api, request, candidates, repeat, options)
            return await api.plan(*asked), runs  # with what was learned by now
        finally:
            await api.delete_workflow(workflow["name"], options.workspace)

    plan, runs = with_api(options, work)
    document = comparison(chosen["id"], plan, runs)
    emit(options, document, comparison_text(document))
    raise typer.Exit(0 if all(each.has_succeeded for each in runs) else 1)


def alone(bundle: Bundle, wanted: str | None) -> tuple[Bundle, Document]:
    """Make a workflow of one of its steps, without what binds it to the others; give it, and the step.

    Raises InvalidRequest where it is not said which step, or where the step reads what only the others bring,
    NotFound where there is none of that name.
    """
    root, _ = compose(bundle.text, Findings(bundle.file_name))
    whole: Any = None if root is None else plain(root)
    steps = list(_tasks(whole))
    names = ", ".join(str(each.get("id")) for each in steps) or "none"
    if wanted is None and len(steps) != 1:
        raise InvalidRequest(f"{bundle.file_name} has several steps: {names}", hint="say which: --step ID")
    found = next((each for each in steps if wanted in (None, each.get("id"))), None)
    if found is None:
        raise NotFound(f"{bundle.file_name} has no step '{wanted}' that a runtime runs", hint=f"there are: {names}")
    step = {key: value for key, value in found.items() if key not in _ABOUT_THE_REST}
    _refuse_what_is_missing(step)
    around = {key: whole[key] for key in ("inputs", "vars", "env", "requirements", "deadline") if key in whole}
    text = json.dumps({"name": benchmark_name(str(whole.get("name", "step"))), **around, "steps": [step]})
    return replace(bundle, text=text, file_name="benchmark.json"), step


def _refuse_what_is_missing(step: Document) -> None:
    """Refuse a step that reads what is only there when the whole workflow runs. Raises InvalidRequest."""
    reads = list(dict.fromkeys(_reads(step)))
    steps = [f"'{read[1]}'" for read in reads if read[0] == "results" and len(read) > 1]
    missing = [f"results of {', '.join(steps)}"] if steps else []
    missing += [_ELSEWHERE[read[0]] for read in reads if read[0] in _ELSEWHERE and len(read) == 1]
    if missing:
        raise InvalidRequest(
            f"step '{step.get('id')}' reads {' and '.join(missing)}, which a benchmark does not run: it runs one step "
            "alone",
            hint="run all of it on each runtime: flexcore workflow execute FILE --runtime R; "
            "or write the values into a copy of the step",
        )


def _reads(value: Any) -> Iterator[tuple[str, ...]]:
    """Find what the expressions in a value read; what is wrong in them is told when the step is deployed."""
    match value:
        case str():
            template, _ = compile_template(value, locate=lambda _: Position(line=1, column=1), allow_secrets=True)
            for part in template.parts if isinstance(template, Text) else (template,):
                if isinstance(part, Expression):
                    yield from part.reads
        case list():
            for each in value:
                yield from _reads(each)
        case dict():
            yield from _reads(list(value.values()))


def _tasks(value: Any) -> Iterator[Document]:
    """Find the steps that a runtime runs, those inside control steps too."""
    if isinstance(value, list):
        for each in value:
            yield from _tasks(each)
    elif isinstance(value, dict):
        if value.get("type") in _TASKS:
            yield value
        for key in _INNER:
            yield from _tasks(value.get(key))


def feasible(plan: Document) -> list[str]:
    """Name the runtimes that can have the step. Raises NoFeasibleRuntime."""
    candidates = plan["steps"][0]["placement"]["candidates"]
    found = [each["runtime"] for each in candidates if each["feasible"]]
    if not found:
        reasons = {each["runtime"]: "; ".join(why["reason"] for why in each["reasons"]) for each in candidates}
        raise NoFeasibleRuntime("no runtime can have this step", reasons=reasons)
    return found


async def _runs(
    api: ControlPlaneApi, request: StartRequest, runtimes: Sequence[str], repeat: int, options: Options
) -> list[_Run]:
    """Run the step on each runtime in turn, one at a time: what runs beside it would be measured too."""
    runs: list[_Run] = []
    for _ in range(repeat):
        for runtime in runtimes:
            started = await api.start(replace(request, runtime=runtime))
            (followed,) = await follow(api, [started.id], options)
            runs.append(_Run(runtime, followed.document))
    return runs


def comparison(step: str, plan: Document, runs: Sequence[_Run]) -> Document:
    """Put the runs side by side: medians by runtime, whether the results are equal, and which was quickest."""
    names = list(dict.fromkeys(each.runtime for each in runs))
    rows = [_row(name, [each for each in runs if each.runtime == name]) for name in names]
    results = {digest(canonical(each.step.get("result"))) for each in runs if each.has_succeeded}
    done = [row for row in rows if row["total_s"] is not None]
    placement = plan["steps"][0]["placement"]
    return {
        "step": step,
        "runtimes": rows,
        "results_equal": len(results) == 1 if results else None,
        "winner": min(done, key=lambda row: float(row["total_s"]))["runtime"] if done else None,
        "placement_would_choose": placement["chosen"],
        "excluded": [
            {"runtime": each["runtime"], "reasons": each["reasons"]}
            for each in placement["candidates"]
            if not each["feasible"]
        ],
    }


def _row(runtime: str, runs: Sequence[_Run]) -> Document:
    done = [each for each in runs if each.has_succeeded]
    totals = [sum(each.phases.values()) for each in done]
    costs = [cost for each in done if (cost := (each.step.get("usage") or {}).get("cost")) is not None]
    failed = next((each for each in runs if not each.has_succeeded), None)
    error = ((failed.document.get("error") or {}).get("message") or failed.document["status"]) if failed else None
    return {
        "runtime": runtime,
        "runs": len(runs),
        "succeeded": len(done),
        **{name: median(each.phases[name] for each in done) if done else None for name in _PHASES},
        "total_s": median(totals) if totals else None,
        "first_s": totals[0] if totals else None,
        "cost": median(costs) if costs else None,
        "error": error,
        "executions": [each.document["id"] for each in runs],
    }


def comparison_text(document: Document) -> list[str]:
    """Lay the comparison out for people."""
    rows = [
        (
            each["runtime"],
            f"{each['succeeded']}/{each['runs']}",
            *(seconds(each[name]) for name in ("queue_s", "start_s", "run_s", "total_s", "first_s")),
            "" if each["cost"] is None else f"{each['cost']:.4g}",
        )
        for each in document["runtimes"]
    ]
    headers = ("RUNTIME", "DONE", "QUEUE", "START", "RUN", "TOTAL", "FIRST", "COST")
    lines = table(headers, rows, right=range(1, len(headers)))
    lines += [
        f"{each['runtime']} failed: {clean(str(each['error']))}" for each in document["runtimes"] if each["error"]
    ]
    for each in document["excluded"]:
        lines.append(f"not {each['runtime']}: {clean('; '.join(why['reason'] for why in each['reasons']))}")
    return [*lines, "", *_verdict(document)]


def _verdict(document: Document) -> Iterator[str]:
    if document["winner"] is None:
        yield f"step '{document['step']}' succeeded nowhere"
        return
    same = "the results are equal" if document["results_equal"] else "the results differ"
    yield f"quickest: {document['winner']}; {same}; placement would choose {document['placement_would_choose']}"
