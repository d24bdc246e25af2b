"""The target: Singer messages on standard input become a file of JSON Lines per stream."""

import argparse
import json
import os
import sys
from pathlib import Path


class File:
    """The rows of one stream by key: those that were there, and those that come."""

    def __init__(self, path, keys):
        self.path, self.keys, self.rows = path, keys, {}
        if path.exists():
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    self.put(json.loads(line))

    def put(self, row):
        key = tuple(row[name] for name in self.keys) if self.keys else len(self.rows)
        self.rows[key] = row

    def write(self):
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with part.open("w", encoding="utf-8") as file:
            for row in self.rows.values():
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--version", action="version", version="target-lines 1.0.0")
    folder = Path(json.loads(Path(parser.parse_args().config).read_text())["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    files, state = {}, None
    for line in sys.stdin:
        message = json.loads(line)
        match message["type"]:
            case "SCHEMA":
                stream = message["stream"]
                if stream not in files:
                    files[stream] = File(folder / f"{stream}.jsonl", message.get("key_properties") or [])
            case "RECORD":
                files[message["stream"]].put(message["record"])
            case "STATE":
                state = message["value"]
    for file in files.values():
        file.write()
    if state is not None:
        print(json.dumps(state), flush=True)
