"""A papermill engine that runs a notebook's cells in this very process, without a second one.

A kernel is a second interpreter that imports everything anew, and a client with message queues
between the two. The cells run here as IPython runs them, and what they show is kept as a kernel
would send it: streams, displayed objects, results and errors.
"""

import base64
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, TextIO
from unittest import mock

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_output
from papermill.engines import Engine, NotebookExecutionManager
from traitlets.config import Config

NAME = "voxadapt"
ENVIRONMENT = {"MPLBACKEND": "agg"}  # figures are shown as images of a page

Outputs = list[Any]  # nbformat's nodes


class _Stream(io.TextIOBase):
    """A standard stream of a cell, kept in its outputs, and passed on if need be."""

    def __init__(self, name: str, outputs: Outputs, terminal: TextIO | None = None) -> None:
        self.name, self._outputs, self._terminal = name, outputs, terminal

    def write(self, text: str) -> int:
        if self._terminal is not None:
            self._terminal.write(text)
        last = self._outputs[-1] if self._outputs else {}
        if last.get("output_type") == "stream" and last["name"] == self.name:
            last["text"] += text
        elif text:
            self._outputs.append(new_output("stream", name=self.name, text=text))
        return len(text)

    def flush(self) -> None:
        if self._terminal is not None:
            self._terminal.flush()

    def fileno(self) -> int:
        if self._terminal is None:
            raise io.UnsupportedOperation("fileno")
        return self._terminal.fileno()


class _Publisher(DisplayPublisher):
    """Keeps what a cell displays."""

    def publish(  # type: ignore[override]  # the rest is of no use on a page
        self, data: dict[str, Any], metadata: dict[str, Any] | None = None, **_: object
    ) -> None:
        _outputs_of(self.shell).append(
            new_output("display_data", data=_encoded(data), metadata=metadata or {})
        )

    def clear_output(self, wait: bool = False) -> None:
        _outputs_of(self.shell).clear()


class _Hook(DisplayHook):
    """Keeps the result of a cell."""

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(
        self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None
    ) -> None:
        _outputs_of(self.shell).append(
            new_output("execute_result", data=_encoded(format_dict), metadata=md_dict or {},
                       execution_count=self.prompt_count)
        )  # fmt: skip

    def finish_displayhook(self) -> None:
        self._is_active = False


class _Shell(InteractiveShell):
    """IPython without a terminal, history or files of the user."""

    outputs: Outputs

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
        self.outputs.append(
            new_output("error", ename=etype.__name__, evalue=str(evalue), traceback=list(stb))
        )


def _outputs_of(shell: object) -> Outputs:
    assert isinstance(shell, _Shell)
    return shell.outputs


def _encoded(data: dict[str, Any]) -> dict[str, Any]:
    """Write images as text, as files of notebooks hold them."""
    return {
        kind: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for kind, value in data.items()
    }


class InProcessEngine(Engine):  # type: ignore[misc]  # papermill has no types
    """Runs a notebook from top to bottom, up to the first cell that fails."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **_: object
    ) -> None:
        """Run the cells.

        Raises:
            KeyboardInterrupt: After Ctrl-C; the outputs so far are saved.
        """
        with _shell() as shell:
            for index, cell in enumerate(nb_man.nb.cells):
                if cell.cell_type != "code":
                    continue
                nb_man.cell_start(cell, index)
                error = _run_cell(shell, cell)
                if error is not None:
                    nb_man.cell_exception(cell, index, exception=error)
                nb_man.cell_complete(cell, index)
                if isinstance(error, KeyboardInterrupt):
                    raise error
                if error is not None:
                    break


def _run_cell(shell: _Shell, cell: Any) -> BaseException | None:
    """Run one code cell; return what stopped it."""
    cell.outputs = shell.outputs = []
    terminal = sys.stderr
    with (
        contextlib.redirect_stdout(_Stream("stdout", shell.outputs)),
        contextlib.redirect_stderr(_Stream("stderr", shell.outputs, terminal)),
    ):
        done = shell.run_cell(cell.source, store_history=True)
    cell.execution_count = done.execution_count
    found: BaseException | None = done.error_before_exec or done.error_in_exec
    return found


@contextlib.contextmanager
def _shell() -> Iterator[_Shell]:
    """Give a fresh shell, the one that `get_ipython` returns meanwhile."""
    main = sys.modules["__main__"]
    caller = InteractiveShell._instance
    with mock.patch.dict(os.environ, ENVIRONMENT), tempfile.TemporaryDirectory() as folder:
        try:
            settings = Config({"HistoryManager": {"enabled": False}})
            shell = _Shell(
                config=settings, ipython_dir=folder, display_pub_class=_Publisher,
                displayhook_class=_Hook,
            )  # fmt: skip
            InteractiveShell._instance = shell  # type: ignore[assignment]
            yield shell
        finally:
            InteractiveShell._instance = caller
            sys.modules["__main__"] = main
