"""JupyterLab as a reader meets it: open, run, look and listen, save; git and DVC see nothing."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from explore.world import write_choice
from reporting.world import make_params

ROOT = Path(__file__).parents[2]
NOTEBOOK = "notebooks/explore/why_this_epoch.ipynb"
COPIED = ("params.yaml", ".gitattributes", ".gitignore", ".dvcignore", ".dvc/config")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="a server that is ended by a signal"),
]


@dataclass(frozen=True)
class Lab:
    """A project with a decision, and a JupyterLab that serves it."""

    root: Path
    address: str
    token: str

    def git(self, *arguments: str) -> str:
        return call("git", "-c", "user.name=A", "-c", "user.email=a@b", *arguments, cwd=self.root)

    def dvc(self, *arguments: str) -> str:
        return call(sys.executable, "-m", "dvc", *arguments, cwd=self.root)

    def url(self, path: str) -> str:
        return f"{self.address}/lab/tree/{path}?token={self.token}"


def call(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_project(root: Path) -> None:
    """Write a project whose pipeline is the stage that depends on the notebooks, and run that."""
    for path in [*ROOT.glob("notebooks/**/[!.]*.ipynb"), *(ROOT / name for name in COPIED)]:
        if ".ipynb_checkpoints" not in path.parts:
            target = root / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"clean": stages["clean"]}}))
    write_choice(root, make_params())


@pytest.fixture
def lab(browser: Any, tmp_path: Path) -> Iterator[Lab]:
    root = tmp_path / "project"
    make_project(root)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Lab(root, f"http://127.0.0.1:{port}", secrets.token_hex(8))
    made.git("init", "--quiet")
    made.dvc("repro", "--quiet")
    made.git("add", ".")
    made.git("commit", "--quiet", "-m", "A project")
    environment = {name: value for name, value in os.environ.items() if "JUPYTER" not in name}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "IPYTHONDIR": str(tmp_path / "ipython")}
    environment |= {f"JUPYTER_{kind}_DIR": str(tmp_path / kind)
                    for kind in ("CONFIG", "DATA", "RUNTIME")}  # fmt: skip
    options = [f"--port={port}", "--ServerApp.port_retries=0", "--no-browser"]
    options += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with open(tmp_path / "lab.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "voxadapt", "lab", *options,
             f"--IdentityProvider.token={made.token}"],
            cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for(made, server, tmp_path / "lab.log")
        yield made
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(lab: Lab, server: subprocess.Popen[bytes], log: Path, limit_s: float = 90.0) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{lab.address}/api?token={lab.token}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")


def choose(page: Any, menu: str, item: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.locator(".lm-Menu-item", has_text=re.compile(rf"^{item}")).first.click()


def save(page: Any) -> None:
    """Save, and wait for the checkpoint behind it: till then JupyterLab ignores another save."""
    with page.expect_response(lambda answer: is_request(answer, "POST", "/checkpoints")) as kept:
        with page.expect_response(lambda answer: is_request(answer, "PUT", "")) as saved:
            choose(page, "File", "Save Notebook")
    assert saved.value.ok and kept.value.ok
    page.wait_for_timeout(500)  # the page has to hear of it, too


def is_request(answer: Any, method: str, ending: str) -> bool:
    address = urllib.parse.unquote(answer.url).partition("?")[0]
    return answer.request.method == method and address.endswith(f"{NOTEBOOK}{ending}")


def test_a_notebook_is_run_seen_heard_and_saved_and_nothing_has_changed(
    lab: Lab, browser_page: Any
) -> None:
    page, path = browser_page, lab.root / NOTEBOOK
    before = path.read_bytes()
    page.set_viewport_size({"width": 1400, "height": 5000})  # what is out of sight is not drawn
    page.goto(lab.url(NOTEBOOK))
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.get_by_text(re.compile(r"\| Idle$")).first.wait_for()  # the kernel is connected
    choose(page, "Run", "Run All Cells")
    count = before.decode().count('"cell_type": "code"')
    page.wait_for_function(
        "count => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
        ".filter(prompt => /^\\[\\d+\\]:/.test(prompt.textContent)).length === count",
        arg=count,
        timeout=90_000,
    )
    outputs = page.locator(".jp-OutputArea-output")
    assert page.locator(".jp-OutputArea [data-mime-type*='stderr']").count() == 0
    assert "is chosen" in outputs.first.inner_text()
    pictures = page.locator(".jp-OutputArea img[src^='data:image/png']")
    assert pictures.count() == 3
    assert pictures.first.evaluate("img => img.naturalWidth") > 300
    players = page.locator(".jp-OutputArea audio")
    assert players.count() == 9
    assert page.locator(".jp-OutputArea select").count() == 3  # candidate, utterance, take
    assert page.locator(".Toastify__toast").count() == 0, "nobody asks about news"
    heard = page.locator(
        ".jp-OutputArea .widget-output, .jp-OutputArea .jupyter-widgets-output-area"
    )
    page.locator(".jp-OutputArea select").nth(2).select_option("2")
    heard.get_by_text("take 2").first.wait_for()
    duration_s = players.first.evaluate(
        "audio => new Promise((ok, no) => { audio.onloadedmetadata = () => ok(audio.duration);"
        " audio.onerror = () => no(audio.error.message); audio.load(); })"
    )
    assert 0.2 < duration_s < 2.0

    for _ in range(2):  # the second time on top of what the first one wrote
        save(page)
        assert path.read_bytes() == before
    assert page.locator(".jp-Dialog").count() == 0
    assert players.count() == 9  # the page keeps showing what the file does not hold
    assert lab.git("status", "--porcelain") == ""
    assert "up to date" in lab.dvc("status")
    assert lab.git("config", "filter.voxadapt-notebook.clean") != ""
    outside = [url for url in page.requests if not url.startswith((lab.address, "ws:"))]
    assert outside == []
