"""JupyterLab on a project: what it saves is what git holds and what DVC has seen.

Notebooks of `notebooks/` are saved in the form of `clean_content`, without outputs. They are a
dependency of the first stage, so that a file with outputs would change `dvc status`. Other editors
save outputs; for these there is a filter of git, which cleans what git reads of a file.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from voxadapt.core.problems import user_error
from voxadapt.tools.notebook import NOTEBOOKS
from voxadapt.tools.notebook_cleaner import clean_content

FILTER = "voxadapt-notebook"  # as .gitattributes names it
SETTINGS = Path(__file__).parent / "lab_settings"  # defaults of JupyterLab's settings


def open_lab(arguments: Sequence[str] = ()) -> None:
    """Run JupyterLab on the project in the current folder until it is stopped.

    Its files are those of the project, its start page is `notebooks/`. It asks no address outside
    for news or updates.
    """
    root = Path.cwd()
    if not (root / NOTEBOOKS).is_dir():
        raise user_error("tools.no_notebooks", root / NOTEBOOKS)
    from jupyterlab.labapp import LabApp

    # The page asks whether it may fetch news, unless a setting has answered before.
    settings = os.environ.get("JUPYTER_CONFIG_PATH")
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [str(SETTINGS), settings]))
    print(set_up_filter(root), flush=True)
    LabApp.launch_instance(
        argv=[
            f"--ServerApp.root_dir={root}",
            f"--LabApp.default_url=/lab/tree/{NOTEBOOKS.as_posix()}",
            f"--ContentsManager.pre_save_hook={__name__}.before_save",
            "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            *arguments,
        ]
    )


def before_save(model: dict[str, Any], path: str, **_: Any) -> None:
    """Clean a notebook that JupyterLab is about to write; the browser keeps showing its outputs.

    The path is relative to the project's root; notebooks outside of `notebooks/` are left alone.
    """
    inside = PurePosixPath(path.strip("/")).parts[:1] == (NOTEBOOKS.name,)
    if model.get("type") == "notebook" and inside and model["content"].get("nbformat") == 4:
        model["content"] = json.loads(clean_content(model["content"]))


def set_up_filter(root: Path) -> str:
    """Tell the repository that a folder lies in to clean notebooks as it reads them.

    The command goes into the repository's own configuration, which git does not share; the
    committed `.gitattributes` says which files it is for. Where the environment is gone, git says
    so and takes files as they are.
    """
    # A plain command: DVC reads git by itself, and starts filters without a shell.
    clean = f"{shlex.quote(Path(sys.executable).as_posix())} -m voxadapt.tools.notebook_cleaner"
    git = shutil.which("git")
    if git is None:
        return "No git here: nothing to set up."
    done = subprocess.run(
        [git, "config", "--local", f"filter.{FILTER}.clean", clean],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return f"{root.resolve()} is in no git repository: nothing to set up."
    return "git leaves the outputs of notebooks out of commits."
