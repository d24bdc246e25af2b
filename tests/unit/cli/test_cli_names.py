from pathlib import Path

import pytest
from fake_control_plane import FakeControlPlane, last

from flexcore.cli import library, resolve
from flexcore.cli.app import run
from flexcore.cli.library import Template
from flexcore.model.requests import Bundle, StartRequest

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shelf = tmp_path / "templates"
    place = shelf / "greeting"
    (place / "output").mkdir(parents=True)
    (place / "output" / "old").write_text("x")
    (place / "workflow.yaml").write_text("# a comment\nname: greeting\nsteps: []\n")
    (place / "template.yaml").write_text(
        "name: greeting\nsummary: Says hello\ndescription: At length\nruntime: local\nparameters: {}\n"
    )
    monkeypatch.setattr(library, "library", lambda: shelf)
    return shelf


def names(fake: FakeControlPlane, name: str) -> str:
    """Run a name and say which text it stood for."""
    assert run(["workflow", "execute", name], fake.connect) == 0
    return str(last(fake, StartRequest).workflow)


def write(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"name: {name}\nsteps: []\n")


def test_each_place_hides_the_next(folder: Path) -> None:
    fake = FakeControlPlane(deployed={"greeting": "name: deployed"})
    assert names(fake, "greeting") == "greeting"
    assert not (folder / "greeting").exists()
    write(folder / "greeting" / "workflow.yaml", "in_folder")
    assert names(fake, "greeting") == "in_folder"
    write(folder / "greeting.yaml", "beside")
    assert names(fake, "greeting") == "beside"
    write(folder / "sub" / "greeting", "a_path")
    assert names(fake, "sub/greeting") == "a_path"


def test_a_template_is_copied_and_said_so(folder: Path, capsys: Capture) -> None:
    fake = FakeControlPlane()

    assert names(fake, "greeting") == "greeting"

    assert "copied template greeting to ./greeting" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "greeting").iterdir()) == ["template.yaml", "workflow.yaml"]
    assert last(fake, Bundle).origin == str(folder / "greeting")


@pytest.mark.parametrize("name", ["nothing", "no/such.yaml", "."])
def test_a_name_that_stands_for_nothing_exits_with_2(name: str, capsys: Capture) -> None:
    assert run(["workflow", "execute", name], FakeControlPlane().connect) == 2
    assert "there is no workflow" in capsys.readouterr().err


def test_templates_are_listed_shown_and_used_once(folder: Path, capsys: Capture) -> None:
    assert run(["template", "list"]) == 0
    assert run(["template", "show", "greeting", "--output", "json"]) == 0
    assert run(["template", "use", "greeting", "mine"]) == 0
    assert run(["template", "use", "greeting", "mine"]) == 2
    assert run(["template", "use", "nothing"]) == 2
    out, err = capsys.readouterr()
    assert "greeting  local    Says hello" in out
    assert (folder / "mine" / "workflow.yaml").exists()
    assert "mine is there already" in err
    assert "templates: greeting" in err


def test_create_from_a_template_renames_the_workflow(folder: Path) -> None:
    assert run(["workflow", "create", "mine", "--template", "greeting"]) == 0

    assert (folder / "mine" / "workflow.yaml").read_text() == "# a comment\nname: mine\nsteps: []\n"


def test_the_librarys_own_templates_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(resolve.__file__).parents[2] / "templates"
    monkeypatch.setattr(library, "library", lambda: folder)

    found = [each for each in library.templates() if isinstance(each, Template)]

    assert [each.name for each in found if not each.summary] == []
