#!/usr/bin/env python3
"""Set up this checkout and run something in it. Needs Python 3.11+ and nothing else; touches nothing outside.

    python3 .ci/dev.py run [ARGUMENTS]      run the template singer_extraction on its real data, in ./singer_extraction
    python3 .ci/dev.py test [ARGUMENTS]     run the tests; the arguments are pytest's
    python3 .ci/dev.py install              only set up .venv, with everything a developer needs
    python3 .ci/dev.py lock [--upgrade]     write requirements/*.lock anew from pyproject.toml

The environment is .venv. What is installed comes from a lock file with hashes, and is left alone while that stays.
An older Python must be able to read this file, so that it can say what is wrong.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
LOCKS = ROOT / "requirements"
EXTRAS = {  # the first has everything of the second
    "dev": ("dev", "meltano", "postgres", "ray", "kubernetes", "s3"),
    "meltano": ("meltano",),
}


def main(arguments: list[str]) -> int:
    """Do what the first argument says, and give the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036  this is who tells
        return _refuse(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    command, rest = arguments[:1], arguments[1:]
    if command == ["run"]:
        return _install("meltano") or _run("flexcore", "workflow", "execute", "singer_extraction", *rest)
    if command == ["test"]:
        # A file of tests stays in one process, so that what it starts for all of them is started once.
        # One more than there are cores: many tests wait for somebody else's process.
        workers = min((os.cpu_count() or 1) + 1, 4)
        spread = ("-n", str(workers), "--dist", "loadfile")
        return _install("dev") or _run("python", "-m", "pytest", *spread, *rest)
    if command == ["install"]:
        return _install("dev")
    if command == ["lock"]:
        return _install("dev") or _lock(rest)
    print(__doc__)
    return 2


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _run(command: str, *arguments: str) -> int:
    search = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    return subprocess.run([str(BIN / command), *arguments], cwd=ROOT, env=search, check=False).returncode


def _install(name: str) -> int:
    """Install a lock file and the checkout itself, unless that, or more, is there already."""
    if any(_mark(each).is_file() and _mark(each).read_text() == _wanted(each) for each in {name, "dev"}):
        return 0
    if not (BIN / "python").exists():
        print("creating .venv", file=sys.stderr)
        try:
            venv.create(ENVIRONMENT, with_pip=True)
        except subprocess.CalledProcessError:
            return _refuse("Python cannot create a virtual environment with pip; Debian: apt-get install python3-venv")
    print(f"installing requirements/{name}.lock into .venv; this takes a minute or two", file=sys.stderr)
    pip = ("python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input")
    failed = _run(*pip, "--require-hashes", "--requirement", str(LOCKS / f"{name}.lock"))
    failed = failed or _run(*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    if not failed:
        _mark(name).write_text(_wanted(name))
    return failed


def _mark(name: str) -> Path:
    return ENVIRONMENT / f"installed-{name}"


def _wanted(name: str) -> str:
    sources = (LOCKS / f"{name}.lock", ROOT / "pyproject.toml")  # the second for its entry points
    content = b"\0".join(each.read_bytes() for each in sources)
    return hashlib.sha256(content + str(ROOT).encode()).hexdigest()


def _lock(arguments: list[str]) -> int:
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--quiet"]
    # Nothing that names a machine or a registry.
    options += ["--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate"]
    for name, extras in EXTRAS.items():
        sources = ["pyproject.toml", "requirements/build.in", *(f"--extra={each}" for each in extras)]
        same = [] if name == "dev" else ["--constraint=requirements/dev.lock"]
        failed = _run(
            "uv", "pip", "compile", *sources, *options, *same, *arguments, f"--output-file={LOCKS / name}.lock"
        )
        if failed:
            return failed
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
