"""Runs one container: a program of its own, started by the node, that needs only the standard library.

It makes a mount and a process namespace (as another user, a user namespace too), puts a private root together — the
machine's files below a throw-away layer, `/dev`, `/proc`, `/tmp`, the volumes — and has the command be process 1 in
it. It tells the node what happens on the file descriptor that its argument names, ends as the command ended, and takes
everything with it when the node dies. Standard input has the order as JSON.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

_NEW_MOUNTS, _NEW_HOST_NAME, _NEW_USER, _NEW_PROCESSES = 0x00020000, 0x04000000, 0x10000000, 0x20000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_DIE_WITH_PARENT = 1
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_TELL = int(sys.argv[1])
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    order = json.load(sys.stdin)
    _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    outside = os.geteuid(), os.getegid()
    kinds = _NEW_MOUNTS | _NEW_HOST_NAME | _NEW_PROCESSES | (_NEW_USER if outside[0] else 0)
    _call(_libc.unshare(kinds), "unshare")
    if kinds & _NEW_USER:
        _map_user(*outside)
    child = os.fork()
    if child == 0:
        _first_process(order)
    os.write(_TELL, f"pid {child}\n".encode())
    os.close(_TELL)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1)  # so that the log ends when the container does
    os.dup2(null, 2)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _map_user(user: int, group: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)


def _first_process(order: dict[str, Any]) -> None:
    try:
        _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        is_root = _is_real_root()
        os.setsid()
        name = order["host_name"].encode()
        _call(_libc.sethostname(name, len(name)), "sethostname")
        _make_root(order)
        os.chdir(order["folder"])
        if order["user"] is not None and is_root:
            _become(order["user"], order["group"], order["more_groups"])
    except OSError as error:
        _give_up(f"{error.strerror or error}")
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    command, environment = order["command"], order["env"]
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.set_inheritable(_TELL, False)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  that is what it is for
    except OSError as error:
        if error.errno == 7:  # the container was made, and what was to run in it could not be loaded
            os.write(2, f"exec {command[0]}: argument list too long\n".encode())
            os._exit(1)
        _give_up(_why_not(command[0], error))


def _is_real_root() -> bool:
    """Say whether other users can be had: in a user namespace of one user there are none."""
    return int(Path("/proc/self/uid_map").read_text().split()[2]) > 1


def _become(user: int, group: int, more_groups: list[int]) -> None:
    os.setgroups(more_groups)
    os.setgid(group)
    os.setuid(user)
    _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # is forgotten when the user changes


def _why_not(program: str, error: OSError) -> str:
    if "/" not in program:
        return f'exec: "{program}": executable file not found in $PATH'
    if isinstance(error, FileNotFoundError):
        return f'exec: "{program}": stat {program}: no such file or directory'
    return f'exec: "{program}": {(error.strerror or "").lower()}'


def _give_up(message: str) -> None:
    os.write(_TELL, f"error {message}\n".encode())
    os._exit(128)


def _make_root(order: dict[str, Any]) -> None:
    base = Path(order["scratch"])
    _mount(None, "/", None, _PRIVATE | _RECURSIVE)
    _mount("tmpfs", base, "tmpfs")
    root = base / "root"
    root.mkdir()
    if _is_real_root():
        _cover(Path("/"), root, base / "layer", "")
    else:
        _cover_each(root, base)
    _mount("/sys", root / "sys", None, _BIND | _RECURSIVE)
    _mount("proc", root / "proc", "proc")
    _mount("tmpfs", root / "tmp", "tmpfs")
    for name in order["opened"] if _is_real_root() else ():  # so that other users reach the interpreter
        _inside(root, name).chmod(0o755)
    _make_devices(root / "dev")
    for mount in order["mounts"]:
        _put(mount["source"], _inside(root, mount["target"]), read_only=mount["read_only"])
    _inside(root, order["folder"]).mkdir(parents=True, exist_ok=True)
    if order["is_root_read_only"]:
        _mount(None, root, None, _REMOUNT | _BIND | _READ_ONLY)
    os.chroot(root)


def _cover(lower: Path, target: Path, layer: Path, options: str) -> None:
    """Show a folder of the machine with a throw-away layer above."""
    upper, work = layer / "upper", layer / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    _mount("overlay", target, "overlay", data=f"lowerdir={lower},upperdir={upper},workdir={work}{options}")


def _cover_each(root: Path, base: Path) -> None:
    """Do the same folder by folder: another user than root may not cover one that others are mounted below."""
    _mount("tmpfs", root, "tmpfs")
    for each in Path("/").iterdir():
        target = root / each.name
        if each.is_symlink():
            target.symlink_to(each.readlink())
        elif each.is_dir():
            target.mkdir()
            with contextlib.suppress(OSError):  # what cannot be shown is empty
                _cover(each, target, base / "layers" / each.name, ",userxattr")


def _inside(root: Path, name: str) -> Path:
    return root / name.lstrip("/")


def _make_devices(place: Path) -> None:
    _mount("tmpfs", place, "tmpfs")
    for name in _DEVICES:
        _put(f"/dev/{name}", place / name, read_only=False)
    (place / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (place / name).symlink_to(f"/proc/self/fd/{number}")
    (place / "shm").mkdir()
    _mount("tmpfs", place / "shm", "tmpfs")


def _put(source: str, target: Path, *, read_only: bool) -> None:
    if Path(source).is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(source, target, None, _BIND)
    if read_only:
        _mount(None, target, None, _REMOUNT | _BIND | _READ_ONLY)


def _mount(source: str | None, target: str | Path, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, str(target), kind, data)]
    _call(_libc.mount(texts[0], texts[1], texts[2], flags, texts[3]), f"mount {target}")


def _call(answer: int, what: str) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        os.write(_TELL, f"error {error.strerror or error}\n".encode())
        sys.exit(128)
