"""Looks at and changes the bookmarks of a Meltano project: `python -m flexcore_meltano.states`, JSON in, JSON out.

A program of its own, so that whoever asks needs neither Meltano nor its database, and a lock ends with its process.
Never changes a state without holding the lock that a run of FlexCore would hold, nor over a run by hand that lives;
what is replaced is kept in a file first. The project's own SQLite database is changed directly, in one transaction;
any other place where Meltano keeps states is reached through `meltano state`.
"""

import fcntl
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from flexcore_meltano.attempt_main import database_ready, open_lock, state_in, write
from flexcore_meltano.bookmarks import CannotRewind, differences, rewound, starts
from flexcore_meltano.client import NoMeltano, base_environment, find_executable
from flexcore_meltano.place import Place, place_of
from flexcore_meltano.project import BadProject, Project, read_project
from flexcore_meltano.stale_runs import is_proven_dead, rows, running_rows

_WAIT_FOR_DATABASE_S = 10.0
_CHATTER = re.compile(r"\S+ +\[(?:info|debug) *\]")
# Meltano reads an empty object where nothing is, and fails on a null.
_UPSERT = (
    "insert into state (state_id, updated_at, partial_state, completed_state) values (?, ?, '{}', ?)"
    " on conflict (state_id) do update set"
    " updated_at = excluded.updated_at, partial_state = '{}', completed_state = excluded.completed_state"
)


class Refused(Exception):
    """The request cannot be done: `code` is one of not_found, conflict, invalid, unavailable."""

    def __init__(self, message: str, hint: str = "", code: str = "invalid") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class Store(Protocol):
    """Where Meltano keeps states. A state is what follows `singer_state`; None where there is none."""

    def ids(self) -> list[str]:
        """Name every state."""
        ...

    def read(self, id: str) -> Any:
        """Give a state."""
        ...

    def write(self, id: str, state: Any) -> None:
        """Replace a state, or remove it when given None."""
        ...


@dataclass(frozen=True, slots=True)
class Commands:
    """Any place at all, through `meltano state`."""

    project: Project
    place: Place
    configured: Path | None

    def ids(self) -> list[str]:
        """Name every state."""
        return sorted(line.strip() for line in self.call("list").splitlines() if line.strip())

    def read(self, id: str) -> Any:
        """Give a state."""
        told = self.call("get", id)
        try:
            return json.loads(told).get("singer_state") if told.strip() else None
        except (ValueError, AttributeError) as error:
            # Taken for no state at all, what is there would be written over without a copy of it.
            raise Refused(f"`meltano state get` printed no state for {id}", code="unavailable") from error

    def write(self, id: str, state: Any) -> None:
        """Replace or remove a state. It travels in a file: a process list shows arguments."""
        if state is None:
            self.call("clear", "--force", id)
            return
        file = self.place.lock(id).with_suffix(f".{os.getpid()}.json")
        write(file, json.dumps({"singer_state": state}))
        try:
            self.call("set", "--force", "--input-file", str(file), id)
        finally:
            file.unlink()

    def call(self, *arguments: str) -> str:
        """Run `meltano state …` in the project; give what it prints."""
        executable = find_executable(self.configured, self.project.root)
        environment = {**os.environ, **base_environment(), "MELTANO_SYS_DIR_ROOT": str(self.place.system)}
        environment["MELTANO_DATABASE_URI"] = self.place.database_uri
        if self.project.environment:
            environment["MELTANO_ENVIRONMENT"] = self.project.environment
        argv = [str(executable.path), "state", *arguments]
        done = subprocess.run(
            argv,
            cwd=self.project.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            told = _reason(done.stderr).replace(self.place.database_uri, "***")
            raise Refused(f"`meltano state {arguments[0]}` failed: {told}", code="unavailable")
        return done.stdout


@dataclass(frozen=True, slots=True)
class Database:
    """The project's own SQLite database. `commands` makes it where it is not there yet."""

    file: Path
    commands: Commands

    def ids(self) -> list[str]:
        """Name every state."""
        return [str(row[0]) for row in rows(str(self.file), "select state_id from state order by state_id")]

    def read(self, id: str) -> Any:
        """Give a state."""
        return state_in(str(self.file), id)

    def write(self, id: str, state: Any) -> None:
        """Replace or remove a state."""
        if not database_ready(str(self.file)):
            self.commands.call("list")
        now = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        try:
            with closing(sqlite3.connect(self.file, timeout=_WAIT_FOR_DATABASE_S)) as connection, connection:
                if state is None:
                    connection.execute("delete from state where state_id = ?", (id,))
                else:
                    connection.execute(_UPSERT, (id, now, json.dumps({"singer_state": state})))
        except sqlite3.OperationalError as error:
            raise Refused(f"Meltano's system database cannot be written: {error}", code="unavailable") from error


@dataclass(frozen=True, slots=True)
class States:
    """The states of one project."""

    project: Project
    place: Place
    store: Store

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a request says. Raises Refused or CannotRewind."""
        id = str(request.get("id") or "")
        match request["action"]:
            case "list":
                return {"states": [{"id": each, "busy": self._holder(each)} for each in self.store.ids()]}
            case "get":
                return {"id": id, "state": self._there(id)}
            case "preview":
                return {"id": id, "starts": [each.document() for each in starts(self._there(id))]}
            case _:
                return self._change(id, request)

    def _change(self, id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Show a change, or make it: then under the lock, and only if the state is still the one that was shown."""
        if not id.strip():
            raise Refused("a state id cannot be empty", "such as dev:tap-orders-to-target-postgres")
        if not request.get("apply"):
            return self._changed(id, request)
        with self._held(id):
            found = self._changed(id, request)
            if "expected" in request and request["expected"] != found["before"]:
                raise Refused(f"state id {id} has changed meanwhile", "look again, and decide anew", "conflict")
            backup = self._keep(id, found["before"])
            self.store.write(id, found["after"])
            return {**found, "applied": True, "backup": backup}

    def _changed(self, id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        before = self.store.read(id)
        match request["action"]:
            case "set":
                after = _singer_state(request["state"])
            case "copy":
                after = self._there(str(request["from"]))
            case "rewind":
                self._there(id)
                after = rewound(before, request["stream"], request["value"], request.get("key"))
            case "clear":
                self._there(id)
                after = None
            case action:
                raise Refused(f"there is no action '{action}'")
        changes = list(differences(before, after))
        return {"id": id, "before": before, "after": after, "changes": changes, "applied": False, "backup": None}

    def _there(self, id: str) -> Any:
        state = self.store.read(id)
        if state is None:
            known = self.store.ids()
            hint = f"state ids there: {', '.join(known[:20]) or 'none'}{' …' if len(known) > 20 else ''}"
            raise Refused(f"{self.project.root.name} has no state '{id}'", hint, "not_found")
        return state

    def _keep(self, id: str, state: Any) -> str | None:
        """Keep a state in a file that `set` takes back."""
        if state is None:
            return None
        moment = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%S%f")
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", id)
        file = self.place.system / "flexcore" / "states" / f"{name}-{moment}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, json.dumps({"singer_state": state}, indent=2) + "\n")
        return str(file)

    @contextmanager
    def _held(self, id: str) -> Iterator[None]:
        """Hold the lock of a state id. Raises Refused when a run holds it, or one by hand is alive."""
        lock = open_lock(str(self.place.lock(id)))
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(id, "a run") from None
            if self._alive_by_hand(id):
                raise _busy(id, "a run that was started by hand")
            yield
        finally:
            os.close(lock)

    def _holder(self, id: str) -> bool:
        """Say whether a run is using the state now. Looking takes the lock for a moment, shared: nobody is refused."""
        path = self.place.lock(id)
        if not path.exists():
            return self._alive_by_hand(id)
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return self._alive_by_hand(id)

    def _alive_by_hand(self, id: str) -> bool:
        """With FlexCore's lock free: say whether Meltano believes in a run that is not proven dead."""
        database, lock = self.place.database, self.place.lock(id)
        if database is None:
            return False
        holders = lock.read_text().split() if lock.exists() else []
        return any(not is_proven_dead(each, holders, str(database)) for each in running_rows(str(database), id))


def states_of(request: Mapping[str, Any]) -> States:
    """Find a project's states. Raises BadProject."""
    root = Path(request["project"]).resolve()
    project = read_project(root, environment=request.get("environment"), fallback=request.get("fallback"))
    place = place_of(project, state_folder=root, deployed=False, beside=root, names=())
    configured = request.get("executable")
    commands = Commands(project, place, Path(configured) if configured else None)
    own = place.database is not None and project.state_backend in (None, "systemdb")
    return States(project, place, Database(place.database, commands) if own and place.database else commands)


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request, with `error` in the answer where it could not be done."""
    try:
        return states_of(request).answer(request)
    except Refused as error:
        return _error(error.message, error.hint, error.code)
    except (BadProject, CannotRewind) as error:
        return _error(error.message, error.hint, "invalid")
    except (sqlite3.Error, OSError) as error:
        where = f"the states in {request['project']} cannot be reached: {error}"
        return _error(where, "look at Meltano's system database and at the rights of its folder", "unavailable")
    except NoMeltano as error:
        return _error(str(error), "install FlexCore with its extra `meltano`, or name one in the settings", "invalid")


def main() -> None:
    """Read one request from standard input and print its answer."""
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


def _error(message: str, hint: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "hint": hint, "code": code}}


def _reason(stderr: str) -> str:
    """Give the last line that says something: Meltano ends with an offer of help, at level info."""
    said = [line for line in stderr.splitlines() if line.strip() and not _CHATTER.match(line)]
    return said[-1].strip() if said else "it said nothing"


def _busy(id: str, who: str) -> Refused:
    return Refused(f"state id {id} is in use by {who}", "wait for its end, or cancel it", "conflict")


def _singer_state(given: Any) -> Any:
    """Take a state as Meltano prints it, or what is inside its `singer_state`."""
    if isinstance(given, Mapping) and set(given) == {"singer_state"}:
        given = given["singer_state"]
    if not isinstance(given, Mapping):
        raise Refused("a state is a JSON object", 'such as {"bookmarks": {"orders": {…}}}')
    return given


if __name__ == "__main__":
    main()
