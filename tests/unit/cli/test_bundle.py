"""What goes along with a workflow file: what its steps name, and the modules that their code imports."""

from pathlib import Path

from flexcore.cli.bundle import collect

WORKFLOW = """
name: w
steps:
  - {id: train, type: python, with: {file: train.py, files: [data, notes.txt]}}
  - {id: say, type: bash, with: {file: say.sh}}
"""


def test_a_bundle_has_what_the_steps_need_and_no_more(tmp_path: Path) -> None:
    for name, content in {
        "w.yaml": WORKFLOW,
        "train.py": "import json, features\n",
        "features.py": "from shapes import square\n",
        "shapes/square.py": "",
        "say.sh": "import other\n",
        "other.py": "",
        "notes.txt": "",
        "data/a/b.csv": "",
        "data/.env": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    bundle = collect(tmp_path / "w.yaml", 1 << 20)

    assert sorted(bundle.files) == [
        *("data/a/b.csv", "features.py", "notes.txt", "say.sh", "shapes/square.py", "train.py"),
    ]


def test_code_that_cannot_be_read_is_for_others_to_judge(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("name: w\nsteps:\n  - {id: a, type: python, with: {file: a.py}}\n")
    (tmp_path / "a.py").write_bytes(b"\xff\xfe(")

    assert sorted(collect(tmp_path / "w.yaml", 1 << 20).files) == ["a.py"]
