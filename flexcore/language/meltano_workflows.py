"""Turns the jobs and schedules of a Meltano project into workflows, and says of each thing how faithful that is. Pure.

Nothing is left out in silence: what has no counterpart is either kept as a plain `meltano` step, or noted as lost.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from flexcore.language.meltano_project import MAPPING, Job, Pipelines, Place, Plugin, Schedule, Word
from flexcore.model.errors import Diagnostic
from flexcore.model.template import Position

_CRON = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_DBT_COMMANDS = {
    **{each: each for each in ("run", "build", "test", "seed", "snapshot", "compile", "deps", "clean", "debug")},
    "docs-generate": "docs generate",
    "freshness": "source freshness",
}
_LONGEST_NAME = 63
_WIDTH = 120


class Fidelity(StrEnum):
    """What became of something."""

    TAKEN = "taken"  # means the same
    CHANGED = "changed"  # done in another way: worth a look
    LOST = "lost"  # has no counterpart


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one thing of the project."""

    fidelity: Fidelity
    place: Place
    message: str

    def document(self) -> dict[str, Any]:
        """Give it as a plain document."""
        at = self.place.position
        place = {"file": self.place.file, "line": at.line, "column": at.column}
        return {"fidelity": self.fidelity.value, **place, "message": self.message}

    def __str__(self) -> str:
        at = self.place.position
        return f"{self.place.file}:{at.line}:{at.column}: {self.fidelity.value}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedWorkflow:
    """A workflow made of a job or a schedule."""

    name: str
    job: str
    schedule: str
    cron: str
    steps: Sequence[Mapping[str, Any]]
    text: str

    @property
    def pipes(self) -> list[Mapping[str, Any]]:
        """The parameters of every step from a tap to a target."""
        return [each["with"] for each in self.steps if each["type"] == "singer"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to."""

    workflows: Sequence[ImportedWorkflow]
    notes: Sequence[Note]


def workflows_of(pipelines: Pipelines, project: str) -> Imported:
    """Make a workflow of every job and every schedule. `project` is what their steps call the project."""
    importer = _Importer(pipelines, project)
    made = [importer.job(each) for each in pipelines.jobs]
    made += [importer.schedule(each) for each in pipelines.schedules]
    importer.environments()
    notes = [*(_problem(each) for each in pipelines.problems), *importer.notes]
    notes.sort(key=lambda note: (note.place.file, note.place.position.line, note.place.position.column))
    return Imported([each for each in made if each is not None], notes)


class _Importer:
    def __init__(self, pipelines: Pipelines, project: str) -> None:
        self.notes: list[Note] = []
        self._pipelines = pipelines
        self._project = project
        self._names = {"test"}  # a file of this name is taken for tests of a workflow

    def note(self, fidelity: Fidelity, place: Place, message: str) -> None:
        self.notes.append(Note(fidelity, place, message))

    def job(self, job: Job) -> ImportedWorkflow | None:
        steps = self._steps(job.words)
        if not job.name or not steps:
            self.note(
                Fidelity.LOST, job.place, f"job '{job.name}' has no tasks" if job.name else "a job without a name"
            )
            return None
        name = self._name(job.name, job.place, "job")
        self.note(Fidelity.TAKEN, job.place, f"job '{job.name}' is workflow '{name}' ({_counted(steps)})")
        return self._workflow(name, f"Job {job.name} of the Meltano project", steps, job=job.name)

    def schedule(self, schedule: Schedule) -> ImportedWorkflow | None:
        job = next((each for each in self._pipelines.jobs if schedule.job and each.name == schedule.job), None)
        steps = self._steps(job.words if job is not None else schedule.words, noted=job is None)
        if not steps or not schedule.name:
            why = f"there is no job '{schedule.job}'" if schedule.job and job is None else "it runs nothing"
            self.note(Fidelity.LOST, schedule.place, f"schedule '{schedule.name}': {why}")
            return None
        for step in steps if schedule.state_id else ():
            # The older form keeps its bookmarks under its own name.
            step["with"] |= {"state": {"id": schedule.state_id}} if step["type"] == "singer" else {}
        name = self._name(schedule.name, schedule.place, "schedule")
        self._note_schedule(schedule, name, steps)
        cron = _CRON.get(schedule.interval, "" if schedule.interval.startswith("@") else schedule.interval)
        labels = {"meltano.schedule": schedule.name, "meltano.interval": schedule.interval}
        description = f"Schedule {schedule.name} of the Meltano project: {schedule.interval or 'no interval'}"
        return self._workflow(
            name,
            description + (f", job {schedule.job}" if job else ""),
            steps,
            job=schedule.job,
            schedule=schedule.name,
            cron=cron,
            labels={**labels, **({"meltano.cron": cron} if cron else {})},
            env=schedule.env,
        )

    def environments(self) -> None:
        places = [*(each.place for each in self._pipelines.jobs), *(each.place for each in self._pipelines.schedules)]
        if not places or not self._pipelines.environments:
            return
        names = ", ".join(self._pipelines.environments)
        default = self._pipelines.default_environment
        how = f"default {default}" if default else "required, because the project has no default_environment"
        self.note(Fidelity.TAKEN, places[0], f"environments {names}: the input `environment` ({how})")

    def _note_schedule(self, schedule: Schedule, name: str, steps: Sequence[Mapping[str, Any]]) -> None:
        self.note(
            Fidelity.TAKEN, schedule.place, f"schedule '{schedule.name}' is workflow '{name}' ({_counted(steps)})"
        )
        kept = f"{schedule.interval or 'no interval'}, kept in its labels"
        self.note(Fidelity.CHANGED, schedule.place, f"schedule '{schedule.name}': not yet run by FlexCore ({kept})")
        for key, value in schedule.env.items():
            if "$" in value:
                message = f"schedule '{schedule.name}': env {key} has a '$', which FlexCore does not fill in"
                self.note(Fidelity.CHANGED, schedule.place, message)

    def _name(self, given: str, place: Place, what: str) -> str:
        plain = re.sub(r"[^a-z0-9_-]+", "-", given.lower()).strip("-_")
        plain = (plain if plain[:1].isalpha() else f"{what}-{plain}")[:_LONGEST_NAME]
        name = _unique(plain, self._names, "-")
        if name != given:
            self.note(Fidelity.CHANGED, place, f"{what} '{given}' is called '{name}'")
        return name

    def _workflow(
        self, name: str, description: str, steps: Sequence[Mapping[str, Any]], *,
        job: str, schedule: str = "", cron: str = "",
        labels: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None,
    ) -> ImportedWorkflow:  # fmt: skip
        document: dict[str, Any] = {"name": name, "description": description}
        if labels:
            document["labels"] = {key: _Quoted(value) for key, value in labels.items()}
        variables: dict[str, str] = {key: _Quoted(value.replace("${{", "$${{")) for key, value in (env or {}).items()}
        if self._pipelines.environments:
            document["inputs"] = self._inputs()
            variables = {"MELTANO_ENVIRONMENT": "${{ input.environment }}", **variables}
        if variables:
            document["env"] = variables
        document["steps"] = list(steps)
        text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
        return ImportedWorkflow(name=name, job=job, schedule=schedule, cron=cron, steps=steps, text=text)

    def _inputs(self) -> dict[str, Any]:
        default = self._pipelines.default_environment
        names = list(dict.fromkeys(self._pipelines.environments))
        environment: dict[str, Any] = {"type": "string", "enum": names}
        inputs: dict[str, Any] = {"type": "object", "additionalProperties": False}
        if default in names:
            environment["default"] = default
        else:
            inputs["required"] = ["environment"]
        environment["description"] = "Environment of the Meltano project"
        return {**inputs, "properties": {"environment": environment}}

    def _steps(self, words: Sequence[Word], *, noted: bool = True) -> list[dict[str, Any]]:
        """Make the steps of a job. The words of a job that has schedules are gone through again, and noted once."""
        notes = list(self.notes)
        taken: set[str] = set()
        steps = [
            {"id": _unique(_identifier(id), taken, "_"), "type": kind, "with": {"project": self._project, **parameters}}
            for id, kind, parameters in self._blocks(list(words))
        ]
        if not noted:
            self.notes = notes
        return steps

    def _blocks(self, words: list[Word]) -> Iterator[tuple[str, str, dict[str, Any]]]:
        while words:
            word = self._spelled(words.pop(0))
            plugin = self._pipelines.plugins.get(word.plugin)
            if plugin is not None and plugin.type == "extractors":
                yield self._singer(word, words)
            elif plugin is not None and plugin.name == self._pipelines.dbt:
                yield self._dbt(word, plugin)
            elif plugin is not None and plugin.type not in ("loaders", MAPPING):
                self.note(Fidelity.TAKEN, word.place, f"{word.text}: a `meltano` step")
                yield word.text, "meltano", {"args": ["invoke", word.text]}
            else:
                what = "stands alone" if plugin else "is no plugin of the project"
                self.note(Fidelity.CHANGED, word.place, f"{word.text} {what}: kept as `meltano run {word.text}`")
                yield word.text, "meltano", {"args": ["run", word.text]}

    def _singer(self, tap: Word, words: list[Word]) -> tuple[str, str, dict[str, Any]]:
        """Take the mappings and the target behind a tap."""
        mappings: list[str] = []
        while words and self._type(words[0]) == MAPPING:
            mappings.append(words.pop(0).text)
        if not words or self._type(words[0]) != "loaders":
            text = " ".join([tap.text, *mappings])
            self.note(Fidelity.CHANGED, tap.place, f"{text} has no target behind it: kept as `meltano run {text}`")
            return tap.text, "meltano", {"args": ["run", tap.text, *mappings]}
        target = words.pop(0).text
        self.note(Fidelity.TAKEN, tap.place, f"{' '.join([tap.text, *mappings, target])}: a `singer` step")
        parameters = {"tap": tap.text, "target": target, **({"mappings": mappings} if mappings else {})}
        return f"{tap.text}_to_{target}", "singer", parameters

    def _dbt(self, word: Word, plugin: Plugin) -> tuple[str, str, dict[str, Any]]:
        command = plugin.commands.get(word.command) or _DBT_COMMANDS.get(word.command)
        if command is None or "$" in command:
            self.note(Fidelity.TAKEN, word.place, f"{word.text}: a `meltano` step, its command is the plugin's own")
            return word.text, "meltano", {"args": ["invoke", word.text]}
        self.note(Fidelity.TAKEN, word.place, f"{word.text}: a `dbt` step (`{command}`)")
        return f"dbt_{word.command}", "dbt", {"command": command}

    def _spelled(self, word: Word) -> Word:
        """Schedules of the older form say `dbt` and mean whatever the plugin is called."""
        own = self._pipelines.dbt
        if own is None or word.plugin != "dbt" or "dbt" in self._pipelines.plugins:
            return word
        return Word(f"{own}:{word.command}", word.place)

    def _type(self, word: Word) -> str:
        plugin = self._pipelines.plugins.get(word.text)
        return plugin.type if plugin else ""


def _problem(found: Diagnostic) -> Note:
    return Note(Fidelity.LOST, Place(found.file, Position(line=found.line, column=found.column)), found.message)


def _identifier(text: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", text)
    return (plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}")[: _LONGEST_NAME - 4]


def _unique(name: str, taken: set[str], joint: str) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        ending = f"{joint}{number}"
        found = f"{name[: _LONGEST_NAME - len(ending)]}{ending}"
    taken.add(found)
    return found


def _counted(steps: Sequence[object]) -> str:
    return f"{len(steps)} step" if len(steps) == 1 else f"{len(steps)} steps"


class _Quoted(str):
    """Text that is written in quotes: the writer follows YAML 1.1, in which other words are numbers and booleans."""


class _Dumper(yaml.SafeDumper):
    """Writes each thing out where it stands, and quoted text in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
