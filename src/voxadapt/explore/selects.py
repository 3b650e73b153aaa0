"""Plain selects in a notebook; where no widgets can be shown, each keeps its first value."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any


class Selects:
    """Selects by name, which cells below read, or which redraw one output.

    The first value of each is selected.
    """

    def __init__(self, **options: Sequence[str]) -> None:
        self._values = {name: values[0] for name, values in options.items()}
        self._boxes: dict[str, Any] = {}
        if _has_widgets():
            from ipywidgets import Dropdown

            self._boxes = {
                name: Dropdown(options=list(values), description=name)
                for name, values in options.items()
            }

    def __getitem__(self, name: str) -> str:
        box = self._boxes.get(name)
        return self._values[name] if box is None else box.value

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self._boxes:
            from ipywidgets import HBox

            display(HBox(list(self._boxes.values())))
        else:
            print(", ".join(f"{name}: {value}" for name, value in self._values.items()))

    def draw(self, show: Callable[..., object]) -> None:
        """Display what a function makes of the selected values, again whenever one changes."""
        from IPython.display import display

        self._ipython_display_()
        if not self._boxes:
            display(show(**self._values))
            return
        from ipywidgets import interactive_output

        display(interactive_output(lambda **values: display(show(**values)), self._boxes))


def _has_widgets() -> bool:
    """Tell whether a kernel runs this that could answer a widget; papermill's runs have none."""
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel") and find_spec("ipywidgets") is not None
