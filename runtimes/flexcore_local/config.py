"""What can be said about an instance of the local runtime, and about each kind of step it runs."""

from typing import Self

from pydantic import ConfigDict, Field, JsonValue, model_validator

from flexcore.runtime.portable.parameters import BashParameters as BashParameters
from flexcore.runtime.portable.parameters import Code, Scalar, Seconds, Strict
from flexcore.runtime.portable.parameters import PythonParameters as PythonParameters


class LocalConfig(Strict):
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


class SqlParameters(Code):
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


class HttpParameters(Strict):
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


class FunctionParameters(Strict):
    """A `function` step: `module:function`, marked with `@flexcore.task`."""

    name: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    args: dict[str, JsonValue] = Field(default_factory=dict)
