"""Take the files of a project into the wheel: the one text of each lies in the repository.

Everything else is in pyproject.toml. An editable install needs no copies.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PATTERNS = (
    "dvc.yaml",
    ".gitattributes",
    ".gitignore",
    ".dvcignore",
    ".dvc/config",
    ".dvc/plots/*",
    "notebooks/*.ipynb",
    "notebooks/explore/*.ipynb",
    "profiles/accelerate/*.yaml",
    "profiles/*.yaml",
    "profiles/respelling/*.yaml",
)


class BuildWithStarter(build_py):
    """Copy what `voxadapt new` writes into `voxadapt/starter` of the wheel."""

    def starter_files(self) -> dict[str, str]:
        """Map each file of the repository to its place in the build folder."""
        paths = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
        names = [path.relative_to(ROOT).as_posix() for path in paths]
        target = Path(self.build_lib) / "voxadapt" / "starter"
        return {name: str(target / name) for name in names}

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if not self.editable_mode:
            for name, target in self.starter_files().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(str(ROOT / name), target)

    def get_source_files(self) -> list[str]:
        """Name the files for source distributions too."""
        return [*super().get_source_files(), *self.starter_files()]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Name the copies among what was built."""
        copied = [] if self.editable_mode else self.starter_files().values()
        return [*super().get_outputs(include_bytecode), *copied]


setup(cmdclass={"build_py": BuildWithStarter})
