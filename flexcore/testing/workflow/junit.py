"""Results as JUnit XML, the form that CI systems read: a suite per test file, a case per test."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from itertools import groupby

from flexcore.testing.workflow.session import Outcome

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(results: Sequence[Outcome]) -> str:
    """Write the results as one document; characters that XML has no place for are replaced."""
    root = ElementTree.Element("testsuites", _counts(results))
    root.set("name", "flexcore workflow test")
    for file, group in groupby(results, key=lambda each: str(each.file)):
        tests = list(group)
        suite = ElementTree.SubElement(root, "testsuite", _counts(tests))
        suite.set("name", _legal(file))
        for each in tests:
            _add(suite, each)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(results: Sequence[Outcome]) -> dict[str, str]:
    failed = sum(not each.passed for each in results)
    seconds = sum(each.seconds for each in results)
    return {
        "tests": str(len(results)),
        "failures": str(failed),
        "errors": "0",
        "skipped": "0",
        "time": f"{seconds:.3f}",
    }


def _add(suite: ElementTree.Element, outcome: Outcome) -> None:
    attributes = {
        "classname": _legal(outcome.workflow),
        "name": _legal(outcome.name),
        "file": _legal(str(outcome.file)),
        "time": f"{outcome.seconds:.3f}",
    }
    case = ElementTree.SubElement(suite, "testcase", attributes)
    if not outcome.passed:
        failure = ElementTree.SubElement(case, "failure", {"message": _legal(outcome.problems[0]), "type": "failed"})
        failure.text = _legal("\n".join([*outcome.problems, "", "what ran:", *outcome.steps]))


def _legal(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
