"""Starts the `python -m voxadapt` of a project's stages at once: forks of a process that waits.

Most of a stage of a small project is its start: seconds of importing torch and what stands on it.
Here one process imports that, with the project's own sources first on its path, and whoever calls
the project's `bin/python` has a fork of it run the command, with the caller's folder, environment
and terminal. Any other command of `bin/python` goes to Python itself.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = """#!{python} -SEs
import json, os, socket, sys

if sys.argv[1:3] != ["-m", "voxadapt"]:
    os.execv("{python}", ["{python}", *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect("{address}")
    socket.send_fds(server, [b"+"], [0, 1, 2])
    asked = {{"argv": sys.argv[2:], "cwd": os.getcwd(), "environ": dict(os.environ)}}
    server.sendall(json.dumps(asked).encode())
    server.shutdown(socket.SHUT_WR)
    code = server.recv(1)
sys.exit(code[0] if code else 70)
"""


@contextmanager
def quick_starts(folder: Path) -> Iterator[None]:
    """Wait beside a project, with the quick `python` in a folder `bin` next to it."""
    if sys.platform != "linux":  # nowhere else is it safe to fork after such imports
        yield
        return
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as short:
        address = f"{short}/socket"
        process = subprocess.Popen(
            [sys.executable, __file__, address], cwd=folder, env=environment, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            client = folder.parent / "bin" / "python"
            client.parent.mkdir()
            client.write_text(CLIENT.format(python=sys.executable, address=address))
            client.chmod(0o755)
            yield
        finally:
            process.kill()
            process.communicate()


def serve(address: str) -> None:
    """Fork a process for every call, for ever."""
    import IPython
    import librosa  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import nbconvert
    import pandas
    import papermill
    import resemblyzer
    import scipy.stats  # noqa: F401
    import torch
    import whisper

    torch.set_num_threads(1)
    from voxadapt.core.compat import import_qwen_tts

    import_qwen_tts()
    assert all((IPython, nbconvert, pandas, papermill, resemblyzer, whisper))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            if not os.fork():
                listening.close()
                answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Have another fork run the command, and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, handles, _, _ = socket.recv_fds(connection, 1, 3)
    asked = json.loads(b"".join(iter(lambda: connection.recv(1 << 16), b"")))
    child = os.fork()
    if not child:
        connection.close()
        for number, handle in enumerate(handles):
            os.dup2(handle, number)
            os.close(handle)
        os.environ.clear()
        os.environ.update(asked["environ"])
        os.chdir(asked["cwd"])
        run(asked["argv"])
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    connection.sendall(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def run(argv: list[str]) -> None:
    """Run `python -m voxadapt` as Python does, and end."""
    sys.argv, sys.path[0] = argv, ""
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering=1, closefd=False) for number, mode in enumerate("rww")
    )
    code: object = 0
    try:
        runpy.run_module("voxadapt", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int):
        print(code or "", file=sys.stderr, end="\n" if code else "")
        code = int(bool(code))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
