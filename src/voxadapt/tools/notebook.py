"""Thin papermill runner, and the cleaner whose copies the pipeline depends on.

A notebook is called with *selectors* only (`params_file`, `candidate`); everything else it reads
from the parameter file. What papermill and Jupyter add to a file (timings, versions, counts,
random ids, another kernel's name) is removed, so that equal runs give equal files and opening a
notebook does not train again.
"""

import ast
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import write_atomic
from voxadapt.core.params import Params, load_params
from voxadapt.core.paths import ARTIFACTS, work_dir
from voxadapt.core.problems import problem, user_error
from voxadapt.tools.notebook_cleaner import KERNELSPEC, clean_content, dump, source_of

NOTEBOOKS = Path("notebooks")
EXPLORE = NOTEBOOKS / "explore"  # no stage runs these
CLEANED = ARTIFACTS / "notebooks"
SELECTORS = ("params_file", "candidate")
PARAMETERS_TAG = "parameters"
PROBLEMS_MIME = "application/vnd.voxadapt.problems+json"


class NotebookError(RuntimeError):
    """A notebook stopped for a reason that is not the user's input; the message says where."""


def clean_notebook(path: str | Path) -> str:
    """Return a notebook's text in the form of `clean_content`."""
    return clean_content(_read_notebook(path))


def clean_all(source: str | Path = NOTEBOOKS, target: str | Path = CLEANED) -> list[Path]:
    """Write the cleaned copy of every notebook and remove copies whose notebook is gone."""
    source, target = Path(source), Path(target)
    copies = []
    for path in sorted(source.glob("*.ipynb")):
        text = clean_notebook(path)
        copy = target / path.name
        if not copy.is_file() or copy.read_text(encoding="utf-8") != text:
            write_atomic(copy, text)
        copies.append(copy)
    for stale in set(target.glob("*.ipynb")) - set(copies):
        stale.unlink()
    return copies


def declared_parameters(path: str | Path) -> tuple[str, ...]:
    """Return the names that a notebook's one `parameters` cell assigns."""
    cells = _read_notebook(path)["cells"]
    tagged = [cell for cell in cells if PARAMETERS_TAG in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        facts = {"tag": PARAMETERS_TAG, "count": len(tagged)}
        raise user_error("tools.parameters_cell", path, **facts)
    try:
        tree = ast.parse(source_of(tagged[0]))
    except SyntaxError as error:
        where = f"{path}, parameters cell"
        raise user_error("tools.no_python_cell", where, found=error) from None
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return tuple(node.id for node in names if isinstance(node.ctx, ast.Store))


def _read_notebook(path: str | Path) -> dict[str, Any]:
    """Read a notebook's JSON, or say why it is none."""
    try:
        nb = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise user_error("tools.no_notebook", path, found=error) from None
    if not isinstance(nb, dict) or not isinstance(nb.get("cells"), list):
        raise user_error("tools.no_notebook", path, found="other JSON")
    return nb


def run_notebook(
    name: str, selectors: Mapping[str, Any], output_html: str | Path, folder: str | Path = NOTEBOOKS
) -> Path:
    """Run one notebook in the current interpreter and write it as one self-contained page.

    Its cells run in this process and in the current directory, the project's root. What they print
    on stderr (progress) goes to the terminal while they run and is left out of the page. Selectors
    are values for its `parameters` cell.

    Raises:
        UserError: If the notebook or a selector is unknown, or the notebook raised one.
        NotebookError: If the notebook failed otherwise; the message names the executed copy.
    """
    path = Path(folder) / f"{name.removesuffix('.ipynb')}.ipynb"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in Path(folder).glob("*.ipynb"))) or "none"
        raise user_error("tools.unknown_notebook", f"notebook {name}", known=there)
    known = [name for name in declared_parameters(path) if name in SELECTORS]
    problems = [
        problem("tools.undeclared_selector", f"{path}, selector {key}", known=", ".join(known))
        for key in selectors
        if key not in known
    ]
    raise_problems(problems)
    output_html = Path(output_html)
    executed = work_dir() / "notebooks" / f"{output_html.stem}.ipynb"
    nb, failure = _execute(path, dict(selectors), executed)
    chosen = [str(value) for key, value in selectors.items() if key != "params_file"]
    title = " · ".join([path.name, *chosen])
    if failure is None:
        normalise_executed(nb)
        write_atomic(executed, dump(nb))
        write_atomic(output_html, to_html(nb, title))
        return output_html
    write_atomic(executed, dump(nb))
    write_atomic(executed.with_suffix(".html"), to_html(nb, title))
    if (stopped_by := _problems_in(nb)) is not None:
        raise stopped_by
    cells = f"Its cells, with the traceback: {executed} (and .html)"
    raise NotebookError(f"{path.name} failed: {failure}\n{cells}")


def _execute(
    path: Path, selectors: dict[str, Any], executed: Path
) -> tuple[dict[str, Any], str | None]:
    """Run a cleaned copy, saved to `executed` after every cell."""
    import logging

    # jsonschema tries these packages at import, for checks of addresses and durations that no
    # notebook needs; the grammar of the first one takes longer than all of papermill.
    for name in ("rfc3987_syntax", "rfc3986_validator", "isoduration"):
        sys.modules.setdefault(name, cast(ModuleType, None))
    import papermill
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillExecutionError

    from voxadapt.tools.notebook_engine import NAME, InProcessEngine

    executed.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    papermill_engines.register(NAME, InProcessEngine)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source.ipynb"
        source.write_text(clean_notebook(path), encoding="utf-8")
        failure = None
        try:
            papermill.execute_notebook(
                str(source), str(executed), parameters=selectors, engine_name=NAME,
                language="python", progress_bar=False,
            )  # fmt: skip
        except PapermillExecutionError as error:
            failure = f"{error.ename}: {error.evalue}"
        nb = _read_notebook(executed)
        nb["metadata"]["kernelspec"] = KERNELSPEC
        return nb, failure


def normalise_executed(nb: dict[str, Any]) -> None:
    """Remove from an executed notebook, in place, what differs between two equal runs.

    Papermill's and Jupyter's metadata, ids and the stderr stream go; the results stay.
    """
    nb["metadata"] = {"kernelspec": KERNELSPEC}
    for index, cell in enumerate(nb["cells"]):
        tags = cell.get("metadata", {}).get("tags", [])
        cell["metadata"] = {"tags": tags} if tags else {}
        cell["id"] = f"c{index}"
        if cell["cell_type"] == "code":
            cell["outputs"] = [o for o in cell["outputs"] if o.get("name") != "stderr"]


def to_html(nb: Mapping[str, Any], title: str) -> str:
    """Render an executed notebook as one page without external addresses, code folded away."""
    import nbformat
    from markupsafe import Markup
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    from voxadapt.reporting.components import environment

    template = (
        "{% extends 'basic/index.html.j2' %}"
        "{% block input %}<details class='code'><summary>Code</summary>{{ super() }}</details>"
        "{% endblock %}"
    )
    exporter = HTMLExporter(
        config=Config({"HTMLExporter": {"anchor_link_text": ""}}), template_name="basic",
        raw_template=template, exclude_input_prompt=True, exclude_output_prompt=True,
        mathjax_url="", require_js_url="", jquery_url="",
    )  # fmt: skip
    body, _ = exporter.from_notebook_node(nbformat.reads(dump(dict(nb)), as_version=4))
    return environment().get_template("notebook.html.j2").render(title=title, body=Markup(body))


def open_project(params_file: str | Path = "params.yaml") -> Params:
    """Begin a notebook: enter the project's root and read the parameters.

    A notebook opened in JupyterLab starts in `notebooks/`; papermill starts it at the root. User
    errors raised from here on are shown as a table without a traceback.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / params_file).is_file():
            os.chdir(folder)
            break
    if "IPython" in sys.modules:
        from IPython import get_ipython

        # Of a progress bar that is not shown, for want of a package that is not needed.
        warnings.filterwarnings("ignore", message="IProgress not found")

        if (shell := get_ipython()) is not None:
            shell.set_custom_exc((UserError,), _show_user_error)
    return load_params(params_file)


def _show_user_error(
    shell: Any, etype: type, error: UserError, tb: Any, tb_offset: Any = None
) -> list[str]:
    """Display a user error as a table, with a machine-readable copy for the runner."""
    from IPython.display import publish_display_data

    from voxadapt.reporting.components import environment

    problems = [problem.as_dict() for problem in error.problems]
    template = environment().get_template("problems.html.j2")
    html = template.render(title=error.title, problems=problems)
    data = {"text/html": html, PROBLEMS_MIME: {"title": error.title, "problems": problems}}
    publish_display_data(data)
    lines = [f"UserError: {error.title or 'this cannot be done; the table above says why.'}"]
    shell._showtraceback(etype, error, lines)
    return lines


def _problems_in(nb: Mapping[str, Any]) -> UserError | None:
    """Rebuild the user error that a notebook displayed, if it displayed one."""
    for cell in nb["cells"]:
        for output in cell.get("outputs", []):
            record = output.get("data", {}).get(PROBLEMS_MIME)
            if record:
                return UserError([Problem(**item) for item in record["problems"]], record["title"])
    return None
