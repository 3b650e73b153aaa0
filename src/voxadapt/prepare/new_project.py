"""A project of one's own: the stages, notebooks and profiles in an empty folder.

The installed package brings the files along (`starter/`, filled by `setup.py` when a wheel is
built); a checkout takes them from where they are edited. There is one text of each.
"""

import re
import shutil
import subprocess
from pathlib import Path

from voxadapt import __version__
from voxadapt.core.errors import raise_problems
from voxadapt.core.files import write_atomic, write_json
from voxadapt.core.params import load_params
from voxadapt.core.problems import problem

PACKAGE = Path(__file__).parents[1]
STARTER = PACKAGE / "starter"
#: Belongs to the miniature, whose models and corpora only the repository holds.
MINIATURE = "miniature"
PROFILES, REQUIREMENTS = Path("profiles"), "requirements.txt"
COPIED = (
    "notebooks/*.ipynb", "notebooks/explore/*.ipynb", "profiles/*/*.yaml",
    ".dvcignore", ".gitattributes", ".dvc/plots/*",
)  # fmt: skip
DVC_CONFIG, DVC_IGNORED, STORE = ".dvc/config", "/config.local\n/tmp\n/cache\n", ".dvcstore"
STAGES_HEADER = """\
# From a folder of recordings to a report that names the best epoch: `dvc repro report`.
#
# - Each stage runs one notebook of notebooks/; its page is in reports/notebooks/. Stages depend on
#   cleaned copies, so that opening or saving a notebook does not train again.
# - requirements.txt names the version of VoxAdapt: every stage that computes depends on it.
# - `candidates` in params.yaml is the only list of epochs. One more epoch continues the training
#   and scores that epoch only.

"""


def source_folder() -> Path:
    """Return the folder with the files of a project: the package's copy, or the checkout."""
    if (STARTER / "dvc.yaml").is_file():
        return STARTER
    checkout = PACKAGE.parents[1]
    assert (checkout / "dvc.yaml").is_file(), f"{STARTER} was not filled when this was built"
    return checkout


def profile_names(source: Path) -> list[str]:
    """Return the profiles that a project of one's own can begin with."""
    names = sorted(path.stem for path in (source / PROFILES).glob("*.yaml"))
    return [name for name in names if name != MINIATURE]


def new_project(folder: Path, profile: str) -> str:
    """Write a project into a new or empty folder: stages, notebooks, profiles, in git and DVC."""
    source = source_folder()
    known = profile_names(source)
    problems = []
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        problems.append(problem("prepare.taken_folder", folder))
    if profile == MINIATURE:
        problems.append(problem("prepare.miniature_profile", "--profile", known=", ".join(known)))
    elif profile not in known:
        facts = {"known": ", ".join(known), "found": profile}
        problems.append(problem("prepare.unknown_profile", "--profile", **facts))
    raise_problems(problems, "No project was made.")
    for path in sorted(path for pattern in COPIED for path in source.glob(pattern)):
        write_atomic(folder / path.relative_to(source), path.read_bytes())
    for name in known:
        text = without_other_voices(_read(source / PROFILES / f"{name}.yaml"))
        write_atomic(folder / PROFILES / f"{name}.yaml", text)
    shutil.copyfile(folder / PROFILES / f"{profile}.yaml", folder / "params.yaml")
    load_params(folder / "params.yaml")
    write_atomic(folder / "dvc.yaml", installed_stages(_read(source / "dvc.yaml")))
    write_atomic(folder / REQUIREMENTS, f"voxadapt=={__version__}\n")
    write_json(folder / "reports" / "language" / "arms.json", {"arms": []})
    write_atomic(folder / ".gitignore", _read(source / ".gitignore") + f"/{STORE}/\n")
    other = next((name for name in known if name != profile), profile)
    readme, name = _read(STARTER / "README.md"), folder.resolve().name
    write_atomic(folder / "README.md", readme.format(name=name, version=__version__, other=other))
    for empty in (STORE, "data/speaker"):
        (folder / empty).mkdir(parents=True)
    config = _read(source / DVC_CONFIG)
    in_git = _enter_git(folder)
    if not in_git:
        config = config.replace("[core]\n", "[core]\n    no_scm = true\n", 1)
    write_atomic(folder / DVC_CONFIG, config)
    write_atomic(folder / ".dvc" / ".gitignore", DVC_IGNORED)
    return (
        f"{folder} is a project for {profile}"
        + ("." if in_git else ", without git, which was not found.")
        + f"\nNext: cd {folder}, then voxadapt init . --audio RECORDINGS (or put clips and "
        "train_raw.jsonl into data/speaker/), then voxadapt doctor. README.md there has the steps."
    )


def without_other_voices(text: str) -> str:
    """Leave the miniature's other voices, which a new project does not have, out of a profile."""
    line = "  other_voices: null # JSONL of other voices, for the floor of similarity"
    text, count = re.subn(r"^  other_voices: .*$", line, text, flags=re.MULTILINE)
    assert count == 1, "a profile names the other voices once"
    return text


def installed_stages(text: str) -> str:
    """Rewrite the repository's stages for a folder that holds no package and no miniature.

    A stage of the repository depends on the modules that it runs; here the modules are installed,
    and the stage depends on the line that says which version of them.
    """
    lines: list[str] = []
    for line in text.splitlines():
        entry = line.strip()
        if entry.startswith("- src/voxadapt"):
            line = f"{line[: line.index('-')]}- {REQUIREMENTS}"
            blank = max((n for n, before in enumerate(lines) if not before), default=0)
            if line in lines[blank:]:  # this stage has it already
                continue
        if entry not in ("- data/models", "- data/voices"):
            lines.append(line)
    body = "\n".join(lines)
    return STAGES_HEADER + body[body.index("stages:\n") :] + "\n"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _enter_git(folder: Path) -> bool:
    """Make a git repository unless the folder lies in one; False where there is no git."""
    if shutil.which("git") is None:
        return False

    def git(*arguments: str) -> bool:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
        return done.returncode == 0

    return git("rev-parse", "--is-inside-work-tree") or git("init", "--quiet")
