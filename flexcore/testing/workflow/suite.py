"""Test files: which belong to a workflow, and what stands in one, checked against the workflow it is about.

Everything that is wrong in a file is found at once and said with its place.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from flexcore.language.document import compose
from flexcore.language.findings import Findings, nearest, shortened
from flexcore.language.nodes import Entry, ListNode, MapNode, Node, ScalarNode, plain
from flexcore.language.reading import Fields, Reading, word_of
from flexcore.model.errors import InvalidDefinition, NotFound
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.template import Position
from flexcore.model.values import JSON
from flexcore.model.workflow import SubWorkflow, Task, type_name
from flexcore.runtime.interface import Health
from flexcore.testing.clock import EPOCH
from flexcore.testing.workflow.addresses import Address
from flexcore.testing.workflow.expectations import expected_of
from flexcore.testing.workflow.program import Program, load_program
from flexcore.testing.workflow.scenario import Expected, Mock, Reply, Scenario
from flexcore.testing.workflow.stand_ins import Kinds

TEST_FILE = "test.yaml"
_ENDING = ".test.yaml"
_WORKFLOW_FILE = "workflow.yaml"
_START = Position(line=1, column=1)
_FIRST_YEAR, _LAST_YEAR = 1970, 2999  # virtual time has to have room before the calendar ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One test file."""

    path: Path
    program: Program
    scenarios: tuple[Scenario, ...]


def is_test_file(path: Path) -> bool:
    """Tell a test file by its name."""
    return path.name == TEST_FILE or path.name.endswith(_ENDING)


def files_about(workflow: Path) -> list[Path]:
    """List the test files beside a workflow file that are about it, by name. Raises NotFound when there is none."""
    beside = sorted(each for each in workflow.parent.glob("*.yaml") if is_test_file(each))
    found = [each for each in beside if _subject(each).resolve() == workflow.resolve()]
    if not found:
        own = TEST_FILE if workflow.name == _WORKFLOW_FILE else f"{workflow.stem}{_ENDING}"
        raise NotFound(f"there are no tests for {workflow}", hint=f"write {workflow.with_name(own)}")
    return found


def read_suite(path: Path, kinds: Kinds, input: JSON = None) -> Suite:
    """Read a test file and the workflow it is about; `input`, if any, takes the place of every test's own.

    Raises InvalidDefinition with every problem, of the file or of the workflow, and NotFound.
    """
    root, reading = _opened(path)
    program = load_program(_there(path, root, reading), kinds.schemas())
    tests = _Tests(reading, program)
    scenarios = tests.read(root)
    if problems := reading.findings.sorted():
        raise InvalidDefinition(problems)
    if input is not None:
        scenarios = tuple(replace(each, input=input) for each in scenarios)
    return Suite(path=path, program=program, scenarios=scenarios)


def _opened(path: Path) -> tuple[MapNode, Reading]:
    findings = Findings(str(path))
    try:
        node, source = compose(path.read_bytes(), findings)
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(node, MapNode):
        if not findings.sorted():
            findings.report(node.position if node else _START, "a test file is a mapping", "wrong-type", "`tests: […]`")
        raise InvalidDefinition(findings.sorted())
    return node, Reading(findings=findings, source=source)


def _subject(path: Path, root: MapNode | None = None) -> Path:
    """Say which workflow file a test file is about: the one it names, else the one that its own name goes with."""
    try:
        root = root or _opened(path)[0]
    except InvalidDefinition:
        root = None  # what is wrong with it is said when it is read
    named = next((each.value for each in root.entries if each.key == "workflow"), None) if root is not None else None
    if isinstance(named, ScalarNode) and isinstance(named.value, str):
        return path.parent / named.value
    own = path.with_name(f"{path.name.removesuffix(_ENDING)}.yaml")
    return own if path.name != TEST_FILE and own.is_file() else path.with_name(_WORKFLOW_FILE)


def _there(path: Path, root: MapNode, reading: Reading) -> Path:
    """Find the workflow file. Raises InvalidDefinition with the place where it is named, NotFound."""
    entry = next((each for each in root.entries if each.key == "workflow"), None)
    subject = _subject(path, root)
    if entry is not None and not (isinstance(entry.value, ScalarNode) and isinstance(entry.value.value, str)):
        reading.wrong_type(entry.value, "`workflow`", "the path of a workflow file")
    elif entry is not None and not subject.is_file():
        reading.findings.report(entry.value.position, f"there is no workflow file {subject}", "unknown-name")
    elif not subject.is_file():
        raise NotFound(f"{path} is about {subject}, which is not there", hint="name its file: `workflow: FILE`")
    if problems := reading.findings.sorted():
        raise InvalidDefinition(problems)
    return subject


class _Tests:
    """Reads the tests of one file."""

    def __init__(self, reading: Reading, program: Program) -> None:
        self._reading = reading
        self._program = program
        self._addresses = program.addresses()

    def read(self, root: MapNode) -> tuple[Scenario, ...]:
        """Read them all."""
        file = Fields(root, self._reading)
        file.text("workflow")
        scenarios: dict[str, Scenario] = {}
        nodes = file.items("tests", required=True)
        if nodes is not None and not nodes:
            self._report(root.position, "there are no tests in `tests`", "missing-key", "- name: …")
        for node in nodes or ():
            if not isinstance(node, MapNode):
                self._reading.wrong_type(node, "a test", "a mapping", "- name: …")
                continue
            scenario = self._scenario(node)
            if scenario.name in scenarios:
                self._report(node.position, f"there are two tests named '{scenario.name}'", "duplicate-name")
            scenarios[scenario.name] = scenario
        file.close()
        return tuple(scenarios.values())

    def _scenario(self, node: MapNode) -> Scenario:
        test = Fields(node, self._reading)
        runtimes, states = self._runtimes(test)
        given, health = test.node("input"), test.mapping("health")
        self._check_known(health, self._program.runtimes() if runtimes is None else runtimes, "there is no runtime")
        self._check_known(test.mapping("env"), self._program.workflow.env, "the workflow's `env` has no")
        scenario = Scenario(
            name=test.text("name", required=True) or "",
            input=plain(given) if given is not None else None,
            secrets=self._texts(test, "secrets"),
            env=self._texts(test, "env"),
            runtimes=runtimes,
            health={**states, **self._health(health)},
            start=self._start(test),
            mocks=tuple(self._mocks(test.mapping("mocks"))),
            expected=self._expected(test),
        )
        test.close(elsewhere={"expected": "did you mean 'expect'?", "inputs": "did you mean 'input'?"})
        return scenario

    def _expected(self, test: Fields) -> Expected:
        node = test.mapping("expect")
        return Expected() if node is None else expected_of(node, self._reading, self._find)

    def _find(self, text: str, position: Position) -> Address | None:
        found = self._addresses.find(text)
        if found is None:
            hint = nearest(text, self._addresses.names)
            self._report(position, f"unknown step '{shortened(text)}'", "unknown-step", hint)
            return None
        return found[0]

    def _check_known(self, node: MapNode | None, known: Collection[str], message: str) -> None:
        for entry in node.entries if node is not None else ():
            if entry.key not in known:
                said = f"{message} '{shortened(entry.key)}'"
                self._report(entry.position, said, "unknown-name", nearest(entry.key, known))

    def _texts(self, test: Fields, key: str) -> dict[str, str]:
        node = test.mapping(key)
        texts: dict[str, str] = {}
        for entry in node.entries if node is not None else ():
            if isinstance(entry.value, ScalarNode) and isinstance(entry.value.value, str):
                texts[entry.key] = entry.value.value
            else:
                self._reading.wrong_type(entry.value, f"`{entry.key}`", "text", "put it in quotes")
        return texts

    def _runtimes(self, test: Fields) -> tuple[tuple[str, ...] | None, dict[str, Health]]:
        """Read which runtimes are there: a list of names, or a mapping of names to their health."""
        node = test.node("runtimes")
        if isinstance(node, MapNode):
            states = self._health(node)
            return tuple(entry.key for entry in node.entries), states
        if node is not None and not isinstance(node, ListNode):
            self._reading.wrong_type(node, "`runtimes`", "a list of names", "or a mapping of names to up or down")
        names: list[str] = []
        for each in node.items if isinstance(node, ListNode) else ():
            if isinstance(each, ScalarNode) and isinstance(each.value, str):
                names.append(each.value)
            else:
                self._reading.wrong_type(each, "a runtime", "a name")
        return (tuple(names) if isinstance(node, ListNode) else None), {}

    def _health(self, node: MapNode | None) -> dict[str, Health]:
        words = {
            entry.key: word_of(entry.value, Health, self._reading, f"the health of `{entry.key}`")
            for entry in (node.entries if node is not None else ())
        }
        return {name: word for name, word in words.items() if word is not None}

    def _start(self, test: Fields) -> datetime:
        text = test.text("start")
        if text is None:
            return EPOCH
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            entry = test.entry("start")
            position = entry.value.position if entry is not None else test.position
            message = f"'{shortened(text)}' is not a time of the years {_FIRST_YEAR} to {_LAST_YEAR}"
            self._report(position, message, "time", "such as 2026-12-01T00:00:00Z")
            return EPOCH
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)

    # --- mocks

    def _mocks(self, node: MapNode | None) -> Iterator[Mock]:
        for entry in node.entries if node is not None else ():
            address = self._mockable(entry)
            nodes = entry.value.items if isinstance(entry.value, ListNode) else (entry.value,)
            if not nodes:
                self._report(entry.value.position, "the list of replies is empty", "missing-key", "one per attempt")
            read = [self._reply(each) for each in nodes]
            if address is not None and read:
                yield Mock(
                    address=address,
                    replies=tuple(reply for reply, _ in read),
                    optional=any(optional for _, optional in read),
                )

    def _mockable(self, entry: Entry) -> Address | None:
        address = self._find(entry.key, entry.position)
        found = self._addresses.find(entry.key)
        steps = [each.step for each in found[1]] if found is not None else []
        if steps and not any(isinstance(each.action, Task | SubWorkflow) for each in steps):
            kind = type_name(steps[0])
            message = f"a {kind} step cannot be mocked: the engine does it itself"
            inside = kind in ("branch", "parallel", "foreach", "while", "try")
            hint = f"mock the steps inside it, such as '{entry.key}.…'" if inside else "leave it out"
            self._report(entry.position, message, "not-mockable", hint)
            return None
        return address

    def _reply(self, node: Node) -> tuple[Reply, bool]:
        if not isinstance(node, MapNode):
            self._reading.wrong_type(node, "a mock", "a mapping", "write {result: …} or {error: {class: …}}")
            return Reply(), False
        written = Fields(node, self._reading)
        result, error = written.entry("result"), written.mapping("error")
        takes, optional = written.duration("takes", zero=True), written.boolean("optional")
        written.close()
        if (result is None) == (error is None):
            which = "both `result` and `error`" if result is not None else "neither `result` nor `error`"
            self._report(node.position, f"a mock has {which}", "exclusive-keys", "give exactly one of them")
        reply = Reply(
            result=plain(result.value) if result is not None else None,
            failure=self._failure(error) if error is not None else None,
        )
        return (replace(reply, takes=takes) if takes is not None else reply), bool(optional)

    def _failure(self, node: MapNode) -> Failure:
        written = Fields(node, self._reading)
        failure = Failure(
            message=written.text("message") or "",
            error_class=written.choice("class", ErrorClass) or ErrorClass.USER,
            name=written.text("name") or "",
            hint=written.text("hint") or "",
            retry_after=(after.total_seconds() if (after := written.duration("retry_after")) is not None else None),
        )
        written.close()
        return failure

    def _report(self, position: Position, message: str, code: str, hint: str = "") -> None:
        self._reading.findings.report(position, message, code, hint)
