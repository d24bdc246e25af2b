"""What may be set: the instance's section of the settings, and the `with` of each kind of step."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flexcore.runtime.portable.parameters import DataName, DataOutput

InstallPolicy: TypeAlias = Literal["auto", "never", "always"]


class _Strict(BaseModel):
    # Built when first used: most commands look at this runtime and do not use it.
    model_config = ConfigDict(extra="forbid", defer_build=True)


class MeltanoConfig(_Strict):
    """One instance of the runtime."""

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


class _Parameters(_Strict):
    project: str = Field(min_length=1, description="Folder of meltano.yml, relative to the workflow, or a known name")
    outputs: dict[DataName, DataOutput] = Field(
        default_factory=dict, description="Files that the run leaves, to be stored: `output/…` is $FLEXCORE_OUTPUT"
    )


class ExplicitState(_Strict):
    """A state id in full, for bookmarks that are shared with something else, such as `meltano el --state-id`."""

    id: str = Field(min_length=1, pattern=r"^[^\s]+$")


PerTap: TypeAlias = OneOrMany | dict[str, OneOrMany]


def for_tap(value: PerTap, tap: str) -> list[str]:
    """Give what was meant for a tap: what is not sorted by tap is meant for all of them."""
    return as_list(value.get(tap, [])) if isinstance(value, dict) else as_list(value)


class SingerParameters(_Parameters):
    """Every tap into every target, one pair after the other, connected by `meltano run`. Bookmarks are Meltano's own.

    Without `state` the state ids are Meltano's own, so a run by hand and a run by FlexCore share their bookmarks.
    """

    tap: str | None = None
    taps: list[str] | None = Field(default=None, min_length=1)
    target: str | None = None
    targets: list[str] | None = Field(default=None, min_length=1)
    mappings: PerTap = Field(
        default_factory=list, description="Mappings between tap and target; for all taps, or by tap"
    )
    config: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Settings per plugin name")
    select: PerTap = Field(default_factory=list, description="`stream.*`, `!stream.column`; for all taps, or by tap")
    state: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] | ExplicitState = Field(
        default="", description="Suffix of the state ids, or `{id: …}` for exactly this state id"
    )
    full_refresh: bool = False
    install: InstallPolicy = "auto"

    @model_validator(mode="after")
    def _one_spelling_of_each(self) -> Self:
        for singular, plural, one, many in (
            ("tap", "taps", self.tap, self.taps),
            ("target", "targets", self.target, self.targets),
        ):
            if (one is None) == (many is None):
                raise ValueError(f"give either {singular} or {plural}")
            if many is not None and len(set(many)) != len(many):
                raise ValueError(f"{plural} names one twice")
        return self

    @model_validator(mode="after")
    def _what_is_by_tap_names_taps(self) -> Self:
        for name, value in (("mappings", self.mappings), ("select", self.select)):
            unknown = sorted(set(value) - set(self.extractors)) if isinstance(value, dict) else []
            if unknown:
                raise ValueError(f"{name} names {', '.join(unknown)}, not a tap of this step")
        return self

    @model_validator(mode="after")
    def _an_explicit_state_is_for_one_pair(self) -> Self:
        if isinstance(self.state, ExplicitState) and (len(self.extractors), len(self.loaders)) != (1, 1):
            raise ValueError("state.id needs exactly one tap and one target; use a suffix for several")
        if isinstance(self.state, ExplicitState) and self.mappings:
            raise ValueError("state.id cannot be used with mappings: Meltano runs mappers with its own state ids only")
        return self

    @property
    def extractors(self) -> list[str]:
        """The taps, however they were spelled."""
        return [self.tap] if self.tap is not None else list(self.taps or ())

    @property
    def loaders(self) -> list[str]:
        """The targets, however they were spelled."""
        return [self.target] if self.target is not None else list(self.targets or ())


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
