"""The JSON Schema of `with` per kind of step, each made when it is asked for: few workflows have more than two kinds.

Making all of them took a tenth of a cold start. Never holds more than one per model.
"""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel

from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind

Schema = dict[str, JSON]
Made = dict[type[BaseModel], Schema]


class ParameterSchemas(Mapping[StepKind, Schema]):
    """Reads as a mapping. Several models for one kind whose schemas differ are alternatives.

    `made` keeps what was made, for whoever asks again: it belongs to the caller.
    """

    def __init__(self, models: Mapping[StepKind, Sequence[type[BaseModel]]], made: Made) -> None:
        self._models = models
        self._made = made

    def __getitem__(self, kind: StepKind) -> Schema:
        """Give the schema of one kind."""
        found: list[Schema] = []
        for model in self._models[kind]:
            if (schema := self._of(model)) not in found:
                found.append(schema)
        return found[0] if len(found) == 1 else {"anyOf": list(found)}

    def __iter__(self) -> Iterator[StepKind]:
        """Go over the kinds that some runtime can run."""
        return iter(self._models)

    def __len__(self) -> int:
        """Count them."""
        return len(self._models)

    def _of(self, model: type[BaseModel]) -> Schema:
        schema = self._made.get(model)
        if schema is None:
            schema = self._made[model] = model.model_json_schema()
        return schema
