"""What can be said about an instance of the local runtime, and about each kind of step it runs."""

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
from flexcore_local.requirements import MOST, normal

_DURATION_SCHEMA = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}


def _seconds(value: Any) -> Any:
    return parse_duration(value).total_seconds() if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0), WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds, or text such as `1m30s`."""

Requirement = Annotated[str, AfterValidator(normal)]
"""A package, as `pandas==2.2.*`, in the one spelling that all its spellings share."""

Scalar = str | bool | int | float | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalConfig(_Strict):
    """One instance of the runtime."""

    slots: int | None = Field(None, ge=1, description="Processes at a time. Default: one per core.")
    function_limit: int = Field(1000, ge=1, description="Calls of `function` steps at a time, apart from the slots.")
    memory: int | None = Field(None, ge=1, description="Bytes that a step may use if it declares nothing itself.")
    python: str | None = Field(None, description="Interpreter of `python` steps. Default: the one FlexCore runs on.")
    max_output_bytes: int = Field(64 << 20, ge=1024, description="Output kept per stream; above it, head and tail.")
    max_result_bytes: int = Field(64 << 20, ge=1, description="Largest result of a step.")
    packages_keep: Seconds = Field(30 * 86400.0, description="How long an unused environment of `packages` is kept.")
    packages_max_bytes: int = Field(20 << 30, ge=1, description="Above it, the longest unused environments go earlier.")
    packages_timeout: Seconds = Field(1800.0, description="Longest time to build one, apart from the step's own.")


class _Code(_Strict):
    script: str | None = Field(None, description="The code itself. It is never templated.")
    file: str | None = Field(None, description="A file beside the workflow file.")
    env: dict[str, Scalar] = Field(default_factory=dict)
    packages: list[Requirement] = Field(default_factory=list, max_length=MOST, description="Installed before it runs.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.script is None) == (self.file is None):
            raise ValueError("give exactly one of `script` and `file`")
        return self


class PythonParameters(_Code):
    """A `python` step: the code defines `main(**args)`."""

    args: dict[str, JsonValue] = Field(default_factory=dict)


class BashParameters(_Code):
    """A `bash` step, run with `-e` and `pipefail`; `args` are `$1`, `$2`, …"""

    args: list[JsonValue] = Field(default_factory=list)


class SqlParameters(_Code):
    """A `sql` step on SQLite or Postgres; `args` is another word for `params`."""

    connection: str
    params: list[JsonValue] | dict[str, JsonValue] | None = None
    args: list[JsonValue] | dict[str, JsonValue] | None = None
    read_only: bool = False

    @model_validator(mode="after")
    def _params_once(self) -> Self:
        if self.params is not None and self.args is not None:
            raise ValueError("give `params` or `args`, not both")
        return self


class HttpParameters(_Strict):
    """An `http` step. `expect` is a status, a class such as `2xx`, or a list of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)

    url: str
    method: str = Field("GET", pattern=r"^[A-Za-z]+$")
    headers: dict[str, Scalar] = Field(default_factory=dict)
    query: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    json_body: JsonValue = Field(None, alias="json")
    body: str | None = None
    timeout: Seconds = 60.0
    expect: int | str | list[int | str] = "2xx"

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if self.has_json and self.body is not None:
            raise ValueError("give `json` or `body`, not both")
        return self

    @property
    def has_json(self) -> bool:
        """Whether `json` was given at all: null is a body too."""
        return "json_body" in self.model_fields_set


class FunctionParameters(_Strict):
    """A `function` step: `module:function`, marked with `@flexcore.task`."""

    name: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    args: dict[str, JsonValue] = Field(default_factory=dict)
