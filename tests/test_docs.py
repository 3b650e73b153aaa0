"""The pages: links lead somewhere, commands exist, generated parts are current."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import textwrap
import tomllib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from commands import refusal
from voxadapt import __version__

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"
STARTER = PROJECT / "src" / "voxadapt" / "starter" / "README.md"
PAGES = sorted(
    [*PROJECT.glob("*.md"), *DOCS.rglob("*.md"), *PROJECT.glob("benchmarks/*.md"), STARTER]
)
NAMES = [page.relative_to(PROJECT).as_posix() for page in PAGES]
CODE_BLOCK = re.compile(r"^[ ]*```(\w*)[^\n]*\n(.*?)^[ ]*```[ ]*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")


def read(name: str) -> str:
    text = (PROJECT / name).read_text(encoding="utf-8")
    if PROJECT / name == STARTER:
        return text.format(name="voice", version=__version__, other="qwen3-tts-1.7b")
    return text


def prose(name: str) -> str:
    """A page without its code blocks."""
    return CODE_BLOCK.sub("", read(name))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes from a page's headings."""
    found: set[str] = set()
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        number, unique = 0, slug
        while unique in found:
            number += 1
            unique = f"{slug}-{number}"
        found.add(unique)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page, text = PROJECT / name, SPAN.sub("", prose(name))
    wrong = []
    targets = LINK.findall(text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for target in targets:
        parts = urlsplit(target)
        if parts.scheme:
            if parts.scheme != "https" or "." not in parts.netloc:
                wrong.append(target)
            continue
        file = (page.parent / parts.path).resolve() if parts.path else page
        inside = file.is_relative_to(PROJECT) and file.exists()
        if not inside or (parts.fragment and parts.fragment not in anchors(file)):
            wrong.append(target)
    assert wrong == []


# --- commands ------------------------------------------------------------------------------------


def shown_commands(name: str) -> list[list[str]]:
    """Every line of a page's bash blocks as words, comments and continuations resolved."""
    lines = []
    for kind, body in CODE_BLOCK.findall(read(name)):
        if kind == "bash":
            joined = textwrap.dedent(body).replace("\\\n", " ")
            lines += [part for line in joined.splitlines() for part in line.split(" && ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def named_commands(name: str) -> list[list[str]]:
    """Commands that a page names in its text; they may leave out what is required."""
    spans = [span for span in SPAN.findall(prose(name)) if not re.search(r"[<…]", span)]
    tools = ("voxadapt ", "dvc ", "make ", "pytest ", "python docs/")
    return [shlex.split(span) for span in spans if span.startswith(tools)]


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_the_pages_exist_with_these_options(name: str) -> None:
    found = [(words, refusal(list(words), True)) for words in shown_commands(name)]
    found += [(words, refusal(list(words), False)) for words in named_commands(name)]
    assert [(words, why) for words, why in found if why] == []


def test_a_command_that_does_not_exist_is_noticed() -> None:
    for line in (
        "voxadapt trian", "voxadapt score", "voxadapt score base --loud", "voxadapt language fly",
        "voxadapt evaluate --batch-size many", "dvc reproduce", "make tea", "pytest tests/none.py",
    ):  # fmt: skip
        assert refusal(shlex.split(line), True), line
    assert refusal(["voxadapt", "score"], False) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tests_that_a_page_names_exist(name: str) -> None:
    for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", read(name)):
        tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
        assert test in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    for path in re.findall(r"`((?:tests|src|docs|notebooks|profiles)/[\w./-]+)`", read(name)):
        assert (PROJECT / path).exists(), path


def test_every_trouble_has_a_cause_a_detection_and_a_remedy() -> None:
    audit = (PROJECT / "src/voxadapt/data/audit.py").read_text(encoding="utf-8")
    rules = set(re.findall(r'"([a-z_]+)"', audit))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in read("docs/troubleshooting.md").splitlines()
        if line.startswith("| ") and not line.startswith("| symptom")
    ]
    assert len(rows) > 30
    for row in rows:
        assert len(row) == 4 and all(row), row
        assert "`" in row[2] or "report" in row[2], f"nothing detects {row[0]}"
        if row[2].startswith("`voxadapt audit`"):
            assert set(re.findall(r"\*(\w+)\*", row[2])) <= rules


# --- what scripts write --------------------------------------------------------------------------


@pytest.mark.slow
def test_the_api_reference_is_current() -> None:
    made = runpy.run_path(str(DOCS / "make_api.py"))["page"]()
    assert (DOCS / "api.md").read_text(encoding="utf-8") == made, "run python docs/make_api.py"
    assert "| `build_layout(" in made
    assert "| `_" not in made


@pytest.mark.slow
def test_the_figure_is_what_the_script_draws() -> None:
    script = runpy.run_path(str(DOCS / "figures" / "shift.py"))
    found = script["align"]()
    p0 = found.layout.prefix_length
    assert found.here_c0 == {p0 - 1: "f0·0", p0: "f1·0", p0 + 1: "f2·0", p0 + 2: "EOS"}
    # A frame too early everywhere: frame j is asked for frame j + 2, the last one for nothing.
    assert found.public_c0 == {p0 - 2: "f0·0", p0 - 1: "f1·0", p0: "f2·0", p0 + 1: "EOS"}
    assert (found.here_hidden[0], found.public_hidden[0]) == (p0 - 1, p0)
    assert found.here_sub == ["f0·1", "f0·2", "f0·3", "f0·4"]
    assert found.public_sub == ["f0·2", "f0·3", "f0·4", "nothing"]
    drawn = (DOCS / "figures" / "shift.svg").read_text(encoding="utf-8")
    assert drawn == script["draw"](found), "run python docs/figures/shift.py"


# --- conventions ---------------------------------------------------------------------------------


def test_the_citation_file_names_this_version() -> None:
    cff = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(cff)  # what the schema requires
    assert set(cff) <= {
        "cff-version", "message", "title", "authors", "type", "abstract", "version", "license",
        "keywords", "references", "date-released", "repository-code", "url", "doi",
    }  # fmt: skip
    assert (cff["cff-version"], cff["type"]) == ("1.2.0", "software")
    assert (str(cff["version"]), cff["license"]) == (__version__, project["license"])


def test_the_changelog_has_this_version_and_known_sections() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([\w.]+)\](?: - \d{4}-\d{2}-\d{2})?$", text, re.MULTILINE)
    assert versions[0] == "Unreleased" and __version__ in versions
    kinds = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_plots_have_templates_and_the_columns_that_these_need() -> None:
    import dvc_render
    from dvc_render.vega_templates import TEMPLATES

    built_in = {template.DEFAULT_NAME for template in TEMPLATES}
    folder = PROJECT / ".dvc" / "plots"
    own = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    known = set()
    for path in Path(dvc_render.__file__).parent.glob("vega*.py"):
        known |= set(re.findall(r"\b[a-z_]+\b", path.read_text(encoding="utf-8")))
    for name, text in own.items():
        assert json.loads(text)["data"] == {"values": "<DVC_METRIC_DATA>"}, name
        anchors_used = {anchor.lower() for anchor in re.findall(r"<DVC_METRIC_([A-Z_]+)>", text)}
        assert {"x", "y", "title", "color"} <= anchors_used <= known, name
    for plot in yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]:
        [(title, given)] = plot.items()
        assert given.get("template", "linear") in built_in | set(own), title
        for file, columns in given["y"].items():
            asked = [columns] if isinstance(columns, str) else list(columns)
            if given.get("template") == "interval":
                asked += [f"{column}_{end}" for column in asked for end in ("low", "high")]
            header = (PROJECT / file).read_text(encoding="utf-8").splitlines()[0].split(",")
            assert {given["x"], *asked} <= set(header), title


def test_hooks_run_tools_of_the_environment() -> None:
    config = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    assert {"ruff", "ruff-format", "mypy", "notebooks"} <= {hook["id"] for hook in hooks}
    for hook in hooks:
        words = shlex.split(hook["entry"])
        if words[:3] == ["python", "-m", "voxadapt"]:
            assert refusal(words[2:], True) is None
        assert hook["language"] == "system"


def test_the_table_of_arms_is_that_of_the_record() -> None:
    record = json.loads((PROJECT / "reports/language/arms.json").read_text(encoding="utf-8"))

    def percent(value: dict[str, float]) -> str:
        point, low, high = (100 * value[name] for name in ("point", "low", "high"))
        return f"{point:.1f} [{low:.1f}, {high:.1f}]"

    base = record["base"]
    rows = [f"| the Base | - | - | {percent(base['cer'])} | {percent(base['source_cer'])} |"]
    for arm in record["arms"]:
        learnt = arm["data"].replace("audio+text", "audio and text")
        cells = [arm["title"], learnt, f"{arm['num_trainable']:,}", percent(arm["cer"])]
        verdict = arm["forgetting"]["verdict"]
        rows.append(f"| {' | '.join(cells)} | {percent(arm['source_cer'])}, {verdict} |")
    page = read("docs/arms.md")
    assert [row for row in page.splitlines() if row.startswith("| ")][1:] == rows


def test_the_hostile_cases_add_up() -> None:
    told, _, table = read("docs/reliability.md").partition(" of them, all made by code:")
    table = table.partition("\n`python tests/fuzz")[0]
    counts = re.findall(r"^\| [^|]+ \| (\d+)\b", table, re.MULTILINE)
    assert len(counts) == 14
    assert int(told.split()[-1]) == sum(map(int, counts))
    from asr import test_huggingface as folders
    from data import test_containers as containers
    from hostile import test_audio_and_rows as rows
    from hostile import test_checkpoints as models
    from hostile import test_texts_and_params as texts
    from prepare import test_import_kinds as kinds
    from prepare import test_init as init
    from tools import test_export as export

    sources = (kinds.KINDS, kinds.UNCLEAR, kinds.ROWS, kinds.STRETCHES, kinds.LHOTSE)
    for number, groups, others in (
        (0, sources, 0), (1, (containers.BROKEN,), 0), (2, (init.PAIRINGS,), 0),
        (3, (export.RECORDS, export.METAS), 2), (5, (rows.AUDIO,), 3),
        (6, (rows.LINES, rows.REPAIRS), 0), (7, (texts.TEXTS,), 0), (8, 3 * (texts.OTHERS,), 1),
        (9, (texts.PARAMS,), 1), (10, (texts.MAPS,), 0), (11, (models.MODELS,), 10),
        (12, (models.WHISPERS, folders.BROKEN), 1),
    ):  # fmt: skip
        assert int(counts[number]) == sum(map(len, groups)) + others, table.splitlines()[number + 3]
    assert f" {len(kinds.KINDS)} layouts, {len(kinds.UNCLEAR)} that are not clear" in table


def test_figures_of_speed_are_those_of_the_benchmarks() -> None:
    """A figure of the README's table stands in benchmarks/RESULTS.md, which scripts write."""
    section = read("README.md").partition("## Fast, and hard to break")[2].partition("\n## ")[0]
    rows = [row.split("|") for row in section.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 4
    results = read("benchmarks/RESULTS.md")
    for row in rows:
        for figure in re.findall(r"\d+\.\d+", row[2]):
            assert figure in results, f"{row[1].strip()}: {figure}"


def test_the_readme_takes_a_minute_and_names_the_miniature_beside_its_figures() -> None:
    text = read("README.md")
    assert len(text.split()) <= 700
    before, _, after = text.partition("<!-- figures")
    assert "**miniature**" in before.rpartition("\n## ")[2], "named before the figures"
    block, _, rest = after.partition("<!-- end of figures -->")
    assert block.count("](docs/examples/") >= 3 and "Base" in block and "## " not in block
    assert "artifacts/checkpoints/" in rest
    assert "nobody has measured" in rest.partition("## Real models")[2].partition("\n## ")[0]


def readme_script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "make_readme.py"))


def test_the_readme_shows_the_run_that_is_here() -> None:
    records = [PROJECT / "reports" / f"{name}.json" for name in ("selection", "confirm")]
    if not all(path.is_file() for path in records):
        pytest.skip("no run is here")
    selection, confirm = (json.loads(path.read_text(encoding="utf-8")) for path in records)
    clips = ["recording", confirm["chosen"], "base"]
    assert all((DOCS / "examples" / f"{clip}.mp3").stat().st_size > 5_000 for clip in clips)
    block = readme_script()["figures"](selection, confirm, clips)
    text = read("README.md")
    assert block.partition("Hear")[0] in text, "run python docs/make_readme.py"
    assert f"artifacts/checkpoints/{confirm['chosen']}" in text


def test_the_example_report_is_small_and_asks_for_nothing() -> None:
    page = (DOCS / "examples" / "report.html").read_text(encoding="utf-8")
    assert len(page) < 700_000 and "default-src 'none'" in page
    assert page.count('src="data:audio/') == 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_an_example_keeps_the_clips_of_the_first_sentence() -> None:
    clip = '<audio controls aria-label="{}" src="data:audio/mpeg;base64,QUJD"></audio>'
    strip = '<div class="mel" style="width: 50%"><img src="data:image/png;base64,QUJD"></div>'
    labels = ("Recording", "Epoch 2, take 1", "Base", "Epoch 2, take 2")
    links = '<a href="run.html">run</a><a href="#why">why</a>'
    clips = "".join(f"<p>{name}</p>\n{strip}\n{clip.format(name)}" for name in labels)
    made, kept = readme_script()["example"](f"{links}<h2>Hear it</h2>{clips}")
    assert list(kept) == ["recording", "epoch-2", "base"] and kept["base"] == b"ABC"
    assert made.count("<audio") == made.count('class="mel"') == 3, "no strip without its sound"
    assert made.endswith("<p>Epoch 2, take 2</p>\n" + readme_script()["SILENT"])
    assert "the first sentence alone has its sound" in made
    assert "<a>run</a>" in made and 'href="#why"' in made


def test_memory_of_cards_is_what_was_counted() -> None:
    results = read("benchmarks/RESULTS.md")
    counted = results.partition("## Memory of training an adapter on a GPU")[2]
    found = dict(re.findall(r"^\| ([^|]+?) \| [\d.]+ GB \| ([\d.]+) GB \|", counted, re.MULTILINE))
    rows = re.findall(
        r"^\| (\S+) \| (.+?) \| ([\d.]+) \| \d+ \|$", read("docs/gpu.md"), re.MULTILINE
    )
    assert len(rows) >= 7
    for size, setting, memory in rows:
        label = setting.replace("`low_memory: true`", "low memory").replace("fp32", "float32")
        label = label.replace("`gradient_checkpointing: true`", "checkpointed")
        label = label.replace("`method: lora`, `compute_dtype: bfloat16`", "adapter")
        assert found[f"{size}, {label}"] == memory, label
