"""The documentation: its links lead somewhere, its examples hold."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from flexcore.language.native import check

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "templates").glob("*/README.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("block", all_blocks("yaml", "yml"), ids=str)
def test_yaml_examples_hold(block: Block) -> None:
    document = yaml.safe_load(block.text.replace("…", "1"))

    if isinstance(document, dict) and {"name", "steps"} <= set(document):
        assert check(block.text, str(block), files=lambda name: True)[1] == []


@pytest.mark.parametrize("block", all_blocks("python", "py"), ids=str)
def test_python_examples_parse(block: Block) -> None:
    compile(block.text, str(block), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        targets = re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text(encoding="utf-8"))
        queue += [(page.parent / target).resolve() for target in targets if ":" not in target]

    assert set(PAGES) - reached - set((ROOT / "templates").rglob("*.md")) == set()


def test_the_readme_begins_with_its_two_commands() -> None:
    commands = [block.text.strip() for block in blocks(ROOT / "README.md") if block.language == "sh"][:2]

    assert len(commands) == 2
    assert [command for command in commands if "\n" in command] == []


def test_ci_runs_the_tests_as_the_readme_does() -> None:
    _, command = [block.text.strip() for block in blocks(ROOT / "README.md") if block.language == "sh"][:2]

    assert f" {command}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
