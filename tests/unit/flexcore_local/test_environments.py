"""What may stand in `packages`, and the folder of environments: digests, builders, users, sweeps."""

import fcntl
import os
import string
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from flexcore_local.environments import Environments, describe, digest
from hypothesis import given
from hypothesis import strategies as st

from flexcore.runtime.flexcore_far.installer_outcomes import judged
from flexcore.runtime.portable.requirements import normal, normal_set

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,10}[A-Za-z0-9]", fullmatch=True)
VERSIONS = st.lists(st.sampled_from([">=1", "<2", "!=1.5", "~=1.4", "==1.*"]), max_size=3, unique=True)
OTHER = ["python", "3.11.7", "linux"]
BUILDER = """
import sys
from pathlib import Path
from flexcore_local.environments import Environments, describe

root = Path(sys.argv[1])

def build(folder, lock):
    with (root.parent / "builds").open("a") as file:
        file.write("x")
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    describe(folder, ["a"])

Environments(root).acquire("a", build, lambda: print("waits", flush=True))
"""


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [
        ("pandas==2.2.*", "pandas==2.2.*"),
        (" Scikit_Learn ", "scikit-learn"),
        ("httpx[http2, Socks] < 1 , >= 0.27", "httpx[http2,socks]<1,>=0.27"),
        ('tomli>=2 ; python_version < "3.11"', 'tomli>=2 ; python_version < "3.11"'),
        ("own @ https://example.org/own-1.0.whl#sha256=00", "own @ https://example.org/own-1.0.whl#sha256=00"),
        ("own @ git+ssh://git@example.org/own.git", "own @ git+ssh://git@example.org/own.git"),
    ],
)
def test_a_requirement_has_one_spelling(given_as: str, expected: str) -> None:
    assert normal(given_as) == expected
    assert normal(expected) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-r requirements.txt", "does not begin with"),
        ("--index-" + "url=https://example.org", "does not begin with"),
        (" -e .", "does not begin with"),
        ("./mine", "not a path"),
        ("/srv/mine.whl", "not a path"),
        ("mine.whl", "not a path"),
        ("requirements.txt", "not a path"),
        ("own @ file:///srv/own.whl", "paths and files"),
        ("own @ https://me:hunter2@example.org/own.whl", "credentials"),
        ("own @ https://hunter2@example.org/own.whl", "credentials"),
        ("https://example.org/own.whl", "needs the name before it"),
        ("a\n-r b", "one line"),
        ("a -r b", "not a requirement"),
        ("a --pre", "not a requirement"),
        ("pandas=2", "not a requirement"),
        ("", "not a requirement"),
        ("a" * 2000, "at most"),
    ],
)
def test_what_is_no_requirement_is_refused_without_quoting_it(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        normal(text)
    assert "hunter2" not in str(refused.value)


@given(st.text(alphabet=string.printable, max_size=40))
def test_whatever_passes_is_no_option_and_no_path_for_the_installer(text: str) -> None:
    try:
        spelled = normal(text)
    except ValueError:
        return
    assert spelled[0].isalnum()
    assert "\n" not in spelled
    assert normal(spelled) == spelled


@given(st.lists(st.tuples(NAMES, VERSIONS), max_size=5), st.randoms(use_true_random=False))
def test_order_case_and_repeats_do_not_change_the_digest(parts: list[tuple[str, list[str]]], random: object) -> None:
    written = [f"{name}{','.join(versions)}" for name, versions in parts]
    again = [f"  {name.upper().replace('-', '_')} {' , '.join(reversed(versions))}" for name, versions in parts * 2]
    random.shuffle(again)  # type: ignore[attr-defined]

    assert digest(normal_set(written), OTHER, {}) == digest(normal_set(again), OTHER, {})


def test_what_is_installed_decides_the_digest_and_nothing_else() -> None:
    plain = digest(["a"], OTHER, {})

    assert plain == digest(["a"], OTHER, {"UV_CACHE_DIR": "x", "UV_HTTP_TIMEOUT": "1", "UV_INDEX_X_PASSWORD": "s"})
    assert plain != digest(["b"], OTHER, {})
    assert plain != digest(["a"], ["python", "3.12.1", "linux"], {})
    assert plain != digest(["a"], OTHER, {"UV_RESOLUTION": "lowest"})
    assert plain != digest(["a"], OTHER, {"UV_DEFAULT_INDEX": "https://example.org"})


def build(folder: Path, lock: int) -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    describe(folder, ["a"])


def never_waits() -> None:
    raise AssertionError("nobody else builds")


def acquired(environments: Environments, name: str) -> int:
    return environments.acquire(name, build, never_waits)[0]


def let_go(environments: Environments, name: str, *, used: float) -> None:
    os.close(acquired(environments, name))
    os.utime(environments.root / f"{name}.use", (used, used))


def test_an_environment_is_built_once(tmp_path: Path) -> None:
    environments = Environments(tmp_path / "all")

    first, built = environments.acquire("a", build, never_waits)
    second, again = environments.acquire("a", lambda folder, lock: pytest.fail("built twice"), never_waits)

    assert (built, again) == (True, False)
    os.close(first)
    os.close(second)


def test_several_processes_build_one_environment_once(tmp_path: Path) -> None:
    root = tmp_path / "all"
    root.mkdir()
    gate = os.open(root / "a.build", os.O_RDWR | os.O_CREAT)  # the lock of another builder
    fcntl.flock(gate, fcntl.LOCK_EX)
    arguments = [sys.executable, "-c", BUILDER, str(root)]
    workers = [subprocess.Popen(arguments, stdout=subprocess.PIPE) for _ in range(4)]
    said = [worker.stdout.readline() for worker in workers if worker.stdout]
    os.close(gate)
    for worker in workers:
        worker.communicate(timeout=60)

    assert said == [b"waits\n"] * 4
    assert [worker.returncode for worker in workers] == [0] * 4
    assert (tmp_path / "builds").read_text() == "x"


def test_users_do_not_keep_each_other_waiting(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    first = acquired(environments, "a")

    second = acquired(environments, "a")

    os.close(first)
    os.close(second)


def test_a_failed_or_half_done_build_is_done_again(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    (tmp_path / "a.building" / "bin").mkdir(parents=True)

    def fail(folder: Path, lock: int) -> None:
        build(folder, lock)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        environments.acquire("a", fail, never_waits)
    left = sorted(each.name for each in tmp_path.iterdir() if each.is_dir())
    os.close(acquired(environments, "a"))

    assert left == []
    assert [each.name for each in environments.present()] == ["a"]


def test_one_whose_interpreter_is_gone_is_built_again(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    os.close(acquired(environments, "a"))
    (tmp_path / "a" / "bin" / "python").unlink()
    (tmp_path / "a" / "bin" / "python").symlink_to(tmp_path / "gone")

    use, built = environments.acquire("a", build, never_waits)

    os.close(use)
    assert built


def test_a_sweep_removes_what_is_unused_and_nothing_in_use(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    let_go(environments, "old", used=1000)
    let_go(environments, "new", used=5000)
    let_go(environments, "busy", used=1000)
    use = os.open(tmp_path / "busy.use", os.O_RDWR)
    fcntl.flock(use, fcntl.LOCK_SH)

    gone = environments.sweep(keep_s=3000, max_bytes=1 << 40, now=6000)

    os.close(use)
    assert gone == ["old"]
    assert sorted(each.name for each in environments.present()) == ["busy", "new"]
    assert not list(tmp_path.glob("old*"))


def test_a_sweep_takes_the_longest_unused_until_the_rest_is_small_enough(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    for number, name in enumerate("abc"):
        let_go(environments, name, used=1000 + number)
        (tmp_path / name / "environment.json").write_text('{"requirements": [], "size_bytes": 100}')

    assert environments.sweep(keep_s=1e9, max_bytes=150, now=2000) == ["a", "b"]


def test_a_sweep_removes_what_a_killed_builder_left(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    (tmp_path / "a.building").mkdir()
    for name in ("a.build", "a.use"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / "b.building").mkdir()  # somebody has just begun
    (tmp_path / "b.use").touch()

    environments.sweep(keep_s=3000, max_bytes=1 << 40, now=2000)

    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith("a")) == []
    assert (tmp_path / "b.building").exists()


def test_a_user_who_comes_during_a_removal_gets_a_new_one(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    let_go(environments, "a", used=1000)
    path = tmp_path / "a.use"
    removing = os.open(path, os.O_RDWR)
    fcntl.flock(removing, fcntl.LOCK_EX)
    told = threading.Event()
    result: list[bool] = []

    def use() -> None:
        descriptor, built = environments.acquire("a", build, told.set)
        os.close(descriptor)
        result.append(built)

    user = threading.Thread(target=use)
    user.start()
    assert told.wait(10)
    (tmp_path / "a").rename(tmp_path / "a.removed")
    path.unlink()
    os.close(removing)
    user.join(10)

    assert result == [True]


@pytest.mark.parametrize(
    ("said", "name", "error_class"),
    [
        (
            "error: No solution found when resolving dependencies\n  cause: Because x was not found in the package "
            "registry and you require x, we can conclude that your requirements are unsatisfiable.",
            "NoSuchPackage",
            "user",
        ),
        (
            "  \u00d7 No solution found when resolving dependencies:\n  \u2570\u2500\u25b6 Because you require a==1 "
            "and a==2, we can conclude that your requirements are unsatisfiable.",
            "Conflict",
            "user",
        ),
        ("error: Failed to fetch: `x`\n  cause: Connection refused (os error 111)", "NoPackageIndex", "dependency"),
        (
            "error: No solution found\n  cause: Because x was not found in the cache and you require x\n\n"
            "hint: Packages were unavailable because the network was disabled.",
            "NoPackageIndex",
            "dependency",
        ),
        ("error: Failed to write\n  cause: No space left on device (os error 28)", "DiskFull", "dependency"),
        ("error: Failed to build `x==1`\n  cause: error: command 'cc' failed", "NotInstallable", "user"),
        ("", "NotInstalled", "user"),
    ],
)
def test_what_the_installer_says_is_told_as(said: str, name: str, error_class: str) -> None:
    told = judged(said, 1)

    assert (told.name, told.error_class) == (name, error_class)
    assert "hint:" not in told.message
    assert "\u00d7" not in told.message


def test_what_the_installer_says_is_put_into_one_line_that_reads_well() -> None:
    said = "error: No solution found\n  cause: Because a needs b<2.\n    And because you require b==2, no.\n   ^^"

    assert judged(said, 1).message == (
        "cannot install the packages: No solution found: Because a needs b<2. And because you require b==2, no."
    )
