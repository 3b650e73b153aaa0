"""Plain selects in a notebook; where no widgets can be shown, each keeps its first value."""

from collections.abc import Callable, Sequence
from typing import Any

import IPython.display
from ipywidgets import Dropdown, HBox, interactive_output


class Selects:
    """Selects by name, which cells below read, or which redraw one output.

    The first value of each is selected.
    """

    def __init__(self, **options: Sequence[str]) -> None:
        self._values = {name: values[0] for name, values in options.items()}
        self._boxes: dict[str, Any] = {}
        # Papermill's runs have no kernel that could answer a widget.
        if hasattr(IPython.get_ipython(), "kernel"):
            self._boxes = {
                name: Dropdown(options=list(values), description=name)
                for name, values in options.items()
            }

    def __getitem__(self, name: str) -> str:
        return self._boxes[name].value if self._boxes else self._values[name]

    def _ipython_display_(self) -> None:
        if self._boxes:
            IPython.display.display(HBox(list(self._boxes.values())))
        else:
            print(", ".join(f"{name}: {value}" for name, value in self._values.items()))

    def draw(self, show: Callable[..., object]) -> None:
        """Display what a function makes of the selected values, again whenever one changes."""
        self._ipython_display_()
        if self._boxes:
            IPython.display.display(
                interactive_output(
                    lambda **values: IPython.display.display(show(**values)), self._boxes
                )
            )
        else:
            IPython.display.display(show(**self._values))
