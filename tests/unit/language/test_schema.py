from pathlib import Path

import jsonschema
import pytest

from flexcore.language.document import compose
from flexcore.language.findings import Findings
from flexcore.language.nodes import plain
from flexcore.language.schema import workflow_schema
from flexcore.model.values import JSON

CORPUS = Path(__file__).parents[2] / "corpus"
VALIDATOR = jsonschema.Draft202012Validator


def document(path: Path) -> JSON:
    node, _ = compose(path.read_text(), Findings(path.name))
    assert node is not None
    return plain(node)


def test_the_schema_is_a_schema() -> None:
    VALIDATOR.check_schema(workflow_schema())


@pytest.mark.parametrize("path", sorted((CORPUS / "good").glob("*.yaml")), ids=lambda path: path.stem)
def test_good_files_fit_the_schema(path: Path) -> None:
    assert [error.message for error in VALIDATOR(workflow_schema()).iter_errors(document(path))] == []


@pytest.mark.parametrize(
    "name", ["unknown_key_step", "unknown_type", "missing_with", "missing_parts_of_controls", "bad_names"]
)
def test_what_a_schema_can_see_it_refuses(name: str) -> None:
    assert not VALIDATOR(workflow_schema()).is_valid(document(CORPUS / "bad" / f"{name}.yaml"))
