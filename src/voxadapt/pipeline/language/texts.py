"""The texts of a language and of the source language that the Base must not forget."""

from voxadapt.core import paths
from voxadapt.core.errors import reason
from voxadapt.core.files import read_jsonl
from voxadapt.core.params import Params, language_section
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import read_record
from voxadapt.data.text import fold_text
from voxadapt.data.texts import TextLine, read_texts


def accepted_texts() -> list[TextLine]:
    """Read the accepted texts; raises `UserError` when they are not as many as the audit says."""
    wanted = read_record(paths.LANGUAGE_TEXT_METRICS, "language data")["num_accepted"]
    try:
        rows = read_jsonl(paths.LANGUAGE_TEXTS)
        lines = [TextLine(row["id"], row["text"], row["id"]) for row in rows]
        found = f"{len(lines)}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        lines, found = [], reason(error)
    if len(lines) != wanted:
        facts = {"wanted": wanted, "found": found}
        raise user_error("pipeline.other_texts", paths.LANGUAGE_TEXTS, **facts)
    return lines


def source_lines(params: Params) -> tuple[list[TextLine], list[TextLine]]:
    """Split the source sentences by hash: those that are scored, and those that may be learnt."""
    source = language_section(params).source
    lines = {fold_text(line.text): line for line in read_texts(source.text, any_field=True)}
    order = sorted(lines, key=lambda key: fingerprint([params.split.salt, "source", key]))
    listed = [
        TextLine(f"source-{fingerprint(key, 10)}", lines[key].text, lines[key].where)
        for key in order
    ]
    return listed[: source.max_sentences], listed[source.max_sentences :]
