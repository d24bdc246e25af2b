"""What may be set: the instance's section of the settings, and the `with` of each kind of step."""

import json
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

InstallPolicy: TypeAlias = Literal["auto", "never", "always"]


class MeltanoConfig(BaseModel):
    """One instance of the runtime."""

    model_config = ConfigDict(extra="forbid")

    executable: Path | None = Field(
        default=None, description="The `meltano` to use where a project has none in its .venv"
    )
    environment: str | None = Field(
        default=None, description="Meltano environment for projects without a default_environment"
    )
    projects: dict[str, Path] = Field(default_factory=dict, description="Names that a step's `project` may use")


OneOrMany: TypeAlias = list[str] | str


def as_list(value: OneOrMany) -> list[str]:
    """Give the list that was meant: one text is a list of one."""
    return [value] if isinstance(value, str) else value


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    project: str = Field(min_length=1, description="Folder of meltano.yml, relative to the workflow, or a known name")


class SingerParameters(_Parameters):
    """A tap and a target, connected by `meltano run`. The bookmarks are the ones that Meltano itself keeps.

    Without `state` the state id is Meltano's own, so a run by hand and a run by FlexCore share their bookmarks.
    """

    tap: str | None = None
    taps: list[str] | None = None
    target: str | None = None
    targets: list[str] | None = None
    config: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Settings per plugin name")
    select: OneOrMany = Field(default_factory=list, description="Patterns such as `stream.*` and `!stream.column`")
    state: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$", description="Suffix of the state id")
    full_refresh: bool = False
    install: InstallPolicy = "auto"

    @model_validator(mode="after")
    def _exactly_one_of_each(self) -> Self:
        for singular, plural, one, many in (
            ("tap", "taps", self.tap, self.taps),
            ("target", "targets", self.target, self.targets),
        ):
            if (one is None) == (many is None):
                raise ValueError(f"give either {singular} or {plural}")
            if many is not None and len(many) != 1:
                raise ValueError(f"{plural} must name exactly one; use one singer step for each pair")
        return self

    @property
    def extractor(self) -> str:
        """The one tap, however it was spelled."""
        return self.tap or (self.taps or [""])[0]

    @property
    def loader(self) -> str:
        """The one target, however it was spelled."""
        return self.target or (self.targets or [""])[0]


class MeltanoParameters(_Parameters):
    """Any Meltano command, such as `[invoke, some-utility:command]`. A last line of JSON on stdout is the result."""

    args: list[str] = Field(min_length=1)
    install: InstallPolicy = "auto"


class DbtParameters(_Parameters):
    """A dbt command of the project's dbt plugin."""

    command: OneOrMany = Field(default="run", min_length=1, description="`run`, or words such as `build --fail-fast`")
    select: OneOrMany = Field(default_factory=list)
    vars: dict[str, Any] = Field(default_factory=dict)
    target: str | None = None
    install: InstallPolicy = "auto"

    @property
    def arguments(self) -> list[str]:
        """The command line behind `dbt`."""
        arguments = self.command.split() if isinstance(self.command, str) else list(self.command)
        if self.select:
            arguments += ["--select", *as_list(self.select)]
        if self.vars:
            arguments += ["--vars", json.dumps(self.vars, sort_keys=True)]
        if self.target:
            arguments += ["--target", self.target]
        return arguments
