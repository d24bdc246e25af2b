"""The tap: one stream per configured file, sorted by its key, resumed strictly after the bookmark."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from singer_sdk import Stream, Tap
from singer_sdk import typing as th

from tap_flights.readers import read

REPORT_EVERY = 5_000  # rows between two reports of the bytes read
JSON_TYPES = {
    "integer": {"type": ["integer", "null"], "maximum": 9223372036854775807},
    "number": {"type": ["number", "null"]},
    "string": {"type": ["string", "null"]},
    "boolean": {"type": ["boolean", "null"]},
}


class FileStream(Stream):
    """The rows of one file. The key only grows within the file, so a bookmark in the middle is safe to resume from."""

    is_sorted = True
    STATE_MSG_FREQUENCY = 2_000  # rows: what a killed run has to read again at most

    def __init__(self, tap: Tap, file: dict[str, Any]) -> None:
        key = file["key"]
        schema = {"type": "object", "properties": {name: JSON_TYPES[kind] for name, kind in file["columns"].items()}}
        super().__init__(tap, schema=schema, name=file["stream"])
        self.primary_keys = (key,)
        self.replication_key = key  # the base class resets it: only now does it stay
        self._path = Path(file["path"])
        self._columns = file["columns"]

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:
        """Yield the rows after the bookmark, and say how many came before it."""
        key, last = self.replication_key, self.get_starting_replication_key_value(context)
        seen = sent = unreported = 0
        for row in read(self._path, self._columns):
            seen += 1
            if last is not None and row.record[key] <= last:
                continue
            sent, unreported = sent + 1, unreported + row.bytes
            yield row.record
            if sent % REPORT_EVERY == 0:
                self._report_bytes(unreported)
                unreported = 0
        self._report_bytes(unreported)
        after = "from the beginning" if last is None else f"after {key} {last}"
        self.logger.info("%s: %d new rows %s, %d rows in the file", self.name, sent, after, seen)

    def _report_bytes(self, count: int) -> None:
        point = {"type": "counter", "metric": "record_bytes", "value": count, "tags": {"stream": self.name}}
        self.logger.info("METRIC: %s", json.dumps(point))


class TapFlights(Tap):
    """Reads the files named in its configuration; relative paths start at the Meltano project."""

    name = "tap-flights"
    config_jsonschema: ClassVar[dict[str, Any]] = th.PropertiesList(
        th.Property(
            "files",
            th.ArrayType(
                th.ObjectType(
                    th.Property("stream", th.StringType, required=True),
                    th.Property("path", th.StringType, required=True),
                    th.Property("key", th.StringType, required=True, description="increasing, unique, never null"),
                    th.Property("columns", th.ObjectType(additional_properties=True), required=True),
                )
            ),
            required=True,
        )
    ).to_dict()

    def discover_streams(self) -> list[FileStream]:
        """Make a stream of every file."""
        return [FileStream(self, file) for file in self.config["files"]]
