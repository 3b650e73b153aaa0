"""Warm starts: one process imports the libraries, and what a pipeline runs is forked from it.

A stage is three processes (DVC, the notebook's runner, its kernel); each would import for
seconds what all others have imported too. `offer` starts a process that imports the libraries
once. While it lives, its address is in the environment, and `hand_over` asks it to do a module's
work in a fork: with the caller's folder, environment, arguments and open files. The caller stays,
passes on signals, and ends as the fork ends. Whatever stands in the way (another system, another
environment, a library that runs threads), the caller does the work itself, a *cold* start.

- Nothing of this package is inherited: a fork loads it anew, as it is on the disk then.
- No fork outlives the one it works for: it is killed when its caller goes away, and when the warm
  process does; that one ends with the process that offered it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

ADDRESS = "VOXADAPT_WARM"
"""Environment variable: path of the socket at which the warm process listens."""

_ACCEPTED = b"+"
_PR_SET_PDEATHSIG = 1
_PASSED_ON = (signal.SIGINT, signal.SIGTERM)
# May differ between the warm process and a caller: what shells, DVC and Jupyter set for their
# children, read when it is needed and by no library at import.
_OF_A_CALL = frozenset({
    ADDRESS, "COLUMNS", "DVC_ROOT", "DVC_STAGE", "JPY_PARENT_PID", "JPY_SESSION_NAME",
    "JUPYTER_PATH", "LINES", "MPLBACKEND", "OLDPWD", "PS1", "PS2", "PWD",
    "PYDEVD_DISABLE_FILE_VALIDATION", "SHLVL", "_",
})  # fmt: skip


def offered() -> bool:
    """Tell whether a warm process was offered to this one."""
    return bool(os.environ.get(ADDRESS))


@contextlib.contextmanager
def offer(preparation: str | None) -> Iterator[dict[str, str]]:
    """Keep a warm process while the block runs.

    Args:
        preparation: `module:function`; the function imports the libraries. None: no warm process.

    Yields:
        What to add to the environment of those who may use it; nothing where there is none.
    """
    if preparation is None or sys.platform != "linux":
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="voxadapt-") as folder:  # of this user alone
        address = str(Path(folder) / "warm")
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(address)
            except OSError:  # a path too long for a socket
                yield {}
                return
            listener.listen(64)
            number = listener.fileno()
            server = subprocess.Popen(
                [sys.executable, "-m", "voxadapt.tools.warm", "--serve", str(number), preparation],
                stdin=subprocess.PIPE,
                pass_fds=[number],
                env=os.environ | {"MPLBACKEND": "agg"},  # as every kernel of the pipeline has it
                process_group=0,  # Ctrl-C of a terminal is for those who use it
            )
        try:
            yield {ADDRESS: address}
        finally:
            assert server.stdin is not None
            server.stdin.close()  # on which it ends, with all forks
            server.terminate()  # while it still imports
            server.wait()


# --- the caller ----------------------------------------------------------------------------------


def hand_over(module: str, arguments: Sequence[str]) -> None:
    """Have the warm process run a module, and end as it ended; return if there is none.

    Args:
        module: As for `python -m`.
        arguments: Of the module.
    """
    address = os.environ.get(ADDRESS)
    if not address:
        return
    parent = os.getppid()
    request = {
        "module": module,
        "arguments": list(arguments),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "prefix": sys.prefix,
    }
    with socket.socket(socket.AF_UNIX) as link:
        held = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # none may be lost
        try:
            link.connect(address)
            message = json.dumps(request).encode()
            socket.send_fds(link, [len(message).to_bytes(8, "big")], [0, 1, 2])
            link.sendall(message)
            if link.recv(1) != _ACCEPTED:
                return
            for number in _PASSED_ON:
                signal.signal(number, lambda number, _: link.sendall(bytes([number])))
            _die_with(parent)
        except OSError:
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        status = b""
        with contextlib.suppress(ConnectionError):
            while len(status) < 4 and (part := link.recv(4 - len(status))):
                status += part
    code = int.from_bytes(status, "big", signed=True) if len(status) == 4 else 1
    if code < 0:  # the fork died of a signal
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _die_with(parent: int) -> None:
    """Have the system kill this process as soon as its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


# --- the warm process ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """What a caller asked for.

    Attributes:
        link: Connection with the caller.
        files: The caller's stdin, stdout and stderr, as descriptors of this process.
    """

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    prefix: str
    link: socket.socket
    files: list[int]


def serve(listener: socket.socket, preparation: str) -> _Call | None:
    """Import the libraries; fork for every caller until stdin ends.

    Args:
        listener: Callers connect to it.
        preparation: `module:function`.

    Returns:
        In a fork, which returns into its own work, the call; in the warm process None, at the end.
    """
    environment = dict(os.environ)
    module, _, function = preparation.partition(":")
    getattr(importlib.import_module(module), function)()
    added = {k: v for k, v in os.environ.items() if k not in environment}
    gc.collect()
    gc.freeze()  # a collection in a fork would write on every page that it shares
    if not _alone():
        print("A library runs threads of its own: stages start cold.", file=sys.stderr)
        return None

    listening = os.getpid()
    links: dict[int, socket.socket] = {}  # of every fork that has not ended
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of stdin is the end
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno())
    waiting = selectors.DefaultSelector()
    for source in (listener, woken, sys.stdin):
        waiting.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            source = key.fileobj
            if source is sys.stdin:
                for pid in links:
                    _signal(pid, signal.SIGKILL)
                for pid in links:  # else who looks for their numbers, as DVC does, finds them
                    os.waitpid(pid, 0)
                address = Path(listener.getsockname())
                with contextlib.suppress(OSError):  # whoever offered it may have been killed
                    address.unlink()
                    address.parent.rmdir()
                return None
            if source is woken:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
                for pid, code in _ended():
                    link = links.pop(pid)
                    with contextlib.suppress(OSError):
                        link.sendall(code.to_bytes(4, "big", signed=True))
                    with contextlib.suppress(KeyError):
                        waiting.unregister(link)
                    link.close()
            elif source is listener:
                call = _receive(listener.accept()[0], environment, added)
                if call is None:
                    continue
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    waiting.close()
                    for other in (listener, woken, waker, call.link, *links.values()):
                        other.close()
                    _become(call, added, listening)
                    return call
                with contextlib.suppress(OSError):  # the fork does the same
                    os.setpgid(pid, pid)
                for number in call.files:
                    os.close(number)
                links[pid] = call.link
                waiting.register(call.link, selectors.EVENT_READ, pid)
                with contextlib.suppress(OSError):
                    call.link.sendall(_ACCEPTED)
            else:
                link = cast(socket.socket, source)
                try:
                    numbers = link.recv(64)
                except ConnectionError:
                    numbers = b""
                for number in numbers:
                    _signal(key.data, number)
                if not numbers:  # the caller is gone
                    waiting.unregister(link)
                    _signal(key.data, signal.SIGKILL)


def _alone() -> bool:
    """Tell whether this process has one thread; a BLAS ends its own before a fork."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return len(os.listdir("/proc/self/task")) == 1


def _receive(
    link: socket.socket, environment: Mapping[str, str], added: Mapping[str, str]
) -> _Call | None:
    """Read a call; None, and the caller begins cold, if this process is not what it would be."""
    link.settimeout(10)
    files: list[int] = []
    try:
        head, files, _, _ = socket.recv_fds(link, 8, 3)
        size, message = int.from_bytes(head, "big"), b""
        while len(message) < size and (part := link.recv(size - len(message))):
            message += part
        call = _Call(**json.loads(message), link=link, files=files)
        link.settimeout(None)
        names = _differing(call.environment, environment, added)
        if call.prefix == sys.prefix and not names:
            return call
        print(f"A cold start: another {', '.join(names) or 'Python'}.", file=sys.stderr)
    except (OSError, ValueError, TypeError):
        pass
    for number in files:
        os.close(number)
    link.close()
    return None


def _differing(
    one: Mapping[str, str], other: Mapping[str, str], added: Mapping[str, str]
) -> list[str]:
    """Name the variables by which libraries might find two environments different."""
    names = (one.keys() | other.keys()) - added.keys() - _OF_A_CALL
    return sorted(name for name in names if one.get(name) != other.get(name))


def _become(call: _Call, added: Mapping[str, str], listening: int) -> None:
    """Make of a fork what a fresh interpreter of the caller's would be."""
    os.setpgid(0, 0)
    _die_with(listening)
    for ours in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(ours, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, number in enumerate(call.files):
        os.dup2(number, target)
        os.close(number)
    os.chdir(call.folder)
    os.environ.clear()
    os.environ.update({**added, **call.environment})
    out = cast(io.TextIOWrapper, sys.stdout)
    out.reconfigure(line_buffering=os.isatty(1))  # as at the interpreter's start
    sys.argv = [call.module, *call.arguments]
    if not sys.flags.safe_path:
        sys.path[0] = call.folder
    for name in [n for n in sys.modules if n.partition(".")[0] == "voxadapt"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _signal(pid: int, number: int) -> None:
    """Send a signal to a fork and to what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _ended() -> Iterator[tuple[int, int]]:
    """Collect the forks that have ended, with their exit codes; negative: a signal."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        if found.si_code != os.CLD_EXITED:  # what it had started ends with it
            _signal(found.si_pid, signal.SIGKILL)
        _, status = os.waitpid(found.si_pid, 0)
        yield found.si_pid, os.waitstatus_to_exitcode(status)


def _run(call: _Call) -> int:
    """Do a call's work as `python -m` does it; return the exit code."""
    try:
        runpy.run_module(call.module, run_name="__main__", alter_sys=True)
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def main() -> None:
    """Serve (`--serve DESCRIPTOR PREPARATION`), or run a module: warm if possible, else cold."""
    if sys.argv[1] != "--serve":
        hand_over(sys.argv[1], sys.argv[2:])
        os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
    code = 0

    def leave() -> None:
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(Exception):
                cast(io.TextIOWrapper, stream).flush()
        os._exit(code)  # what torch and others loaded need not be taken down in every fork

    atexit.register(leave)  # the first to register is the last to be called
    call = serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3])
    if call is not None:
        code = _run(call)


if __name__ == "__main__":
    main()
