"""What stands in the `with` of a portable step: the same models for every runtime, so that one word moves it."""

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from flexcore.model.units import parse_duration
from flexcore.model.values import wrong_format
from flexcore.runtime.portable.requirements import MOST, normal

_DURATION_SCHEMA = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
_DATA_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"


def _seconds(value: Any) -> Any:
    return parse_duration(value).total_seconds() if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0), WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds, or text such as `1m30s`."""

Requirement = Annotated[str, AfterValidator(normal)]
"""A package, as `pandas==2.2.*`, in the one spelling that all its spellings share."""

Scalar = str | bool | int | float | None

DataName = Annotated[str, Field(pattern=_DATA_NAME)]
"""What data is called: a name that is legal as a Python argument and in a variable of the shell."""


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ValueError("a path is relative and stays inside its folder")
    return path


RelativePath = Annotated[str, Field(min_length=1), AfterValidator(_inside)]
"""A path below a folder."""


class Strict(BaseModel):
    """Unknown keys are refused, and nothing is changed later."""

    # A command sees few of the kinds of steps, and building a model costs milliseconds of its start.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class DataInput(Strict):
    """Data that a step reads. `from` is a typed reference, as the results of other steps hold them."""

    source: dict[str, JsonValue] = Field(alias="from", description="The reference: {uri, format, bytes, …}.")
    format: str | None = Field(None, min_length=1, description="The format the step reads; another one is refused.")

    @model_validator(mode="after")
    def _is_a_reference(self) -> Self:
        uri, form = self.source.get("uri"), self.source.get("format")
        if not isinstance(uri, str) or not isinstance(form, str):
            raise ValueError("`from` is no reference: it has no `uri` and `format`; take one out of a step's result")
        size = self.source.get("bytes", 0)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError("`from` is no reference: its `bytes` is no size")
        if self.format is not None and (wrong := wrong_format(self.format, self.source)):
            raise ValueError(wrong)
        return self


class DataOutput(Strict):
    """A file that a step writes, below its working folder; its result then has a reference to it."""

    path: RelativePath = Field(description="Where the step writes it, relative to its working folder.")
    format: str = Field(min_length=1, description="What the reference says that it is.")


class Code(Strict):
    """What all steps have that are code: `script` or `file`, and what it needs around it."""

    script: str | None = Field(None, description="The code itself. It is never templated.")
    file: str | None = Field(None, description="A file beside the workflow file.")
    env: dict[str, Scalar] = Field(default_factory=dict)
    packages: list[Requirement] = Field(default_factory=list, max_length=MOST, description="Installed before it runs.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.script is None) == (self.file is None):
            raise ValueError("give exactly one of `script` and `file`")
        return self


class _WithData(Code):
    files: list[RelativePath] = Field(default_factory=list, description="More files or folders beside the workflow.")
    inputs: dict[DataName, DataInput] = Field(default_factory=dict, description="Data to read, as local files.")
    outputs: dict[DataName, DataOutput] = Field(default_factory=dict, description="Files to store and refer to.")

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        both = sorted(self.inputs.keys() & self.outputs.keys())
        if both:
            raise ValueError(f"{', '.join(both)} cannot be an input and an output at the same time")
        for names in (self.inputs, self.outputs):
            if len({name.upper() for name in names}) < len(names):
                raise ValueError("two names of data differ only in their case, and variables of the shell do not")
        return self


class PythonParameters(_WithData):
    """A `python` step: the code defines `main(**args)`."""

    args: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _arguments_once(self) -> Self:
        both = sorted(self.args.keys() & self.inputs.keys())
        if both:
            raise ValueError(f"{', '.join(both)} cannot be in `args` and in `inputs` at the same time")
        return self


class BashParameters(_WithData):
    """A `bash` step, run with `-e` and `pipefail`; `args` are `$1`, `$2`, …"""

    args: list[JsonValue] = Field(default_factory=list)
