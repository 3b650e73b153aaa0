"""Stage `language_confirm`: choose the model that is kept; compare it with the Base."""

from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.core.lineage import MADE, SPEAKING_LANGUAGE, check_made, sealed
from voxadapt.core.params import Params, language_scoring, language_section
from voxadapt.core.records import Record, read_record
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.candidates import BASE, find_candidate
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.finalists import confirm_choice, finalists
from voxadapt.pipeline.language.choosing import read_language_scores
from voxadapt.pipeline.language.sentences import SOURCE, TARGET
from voxadapt.pipeline.language.speak_and_score import score_languages
from voxadapt.pipeline.plot_table import interval_columns, write_plot_table
from voxadapt.pipeline.tracks import language_track


@stage("language_confirm")
def run(params: Params) -> StageResult:
    """Choose the model that is kept, and compare it with the Base on the untouched split."""
    track = language_track(params)
    corpus = [track.corpus.made_by_audit, track.corpus.made_reference]
    inputs = [*corpus, paths.LANGUAGE_CHOICE1, paths.MADE_BY_STAGE1, paths.MADE_BY_STAGE2]
    inputs += [paths.MADE_BY_STAGE2_SCORES]
    inputs += [paths.LANGUAGE_SCORES / name / MADE for name in track.candidates]
    check_made(inputs, params)
    decision = _choose(params)
    _write_epochs_table(params, decision["stage2_ran"])
    decision = {key: value for key, value in decision.items() if key != "made"}
    written, keys = [paths.LANGUAGE_EPOCHS_TABLE], ("language.select", "measurable")
    decision = sealed(decision, "language confirm", written, inputs, params, keys)
    write_json(paths.LANGUAGE_SELECTION, decision)
    context, chosen = open_context(params), decision["chosen"]
    folders = {}
    for name in finalists(paths.LANGUAGE_CONFIRMATION, chosen):
        folder = paths.LANGUAGE_CONFIRMATION / name
        candidate = find_candidate(track, name)
        score_languages(params, context, candidate, "confirmation", folder, with_source=False)
        folders[name] = folder / TARGET
    record = confirm_choice(track, context, decision, folders, params.usable)
    inputs, written = [paths.LANGUAGE_SELECTION, *corpus], [paths.LANGUAGE_CONFIRMATION]
    spoken_by = (*SPEAKING_LANGUAGE, "asr.second", "usable")
    record = sealed(record, "language confirm", written, inputs, params, spoken_by)
    write_json(paths.LANGUAGE_CONFIRM, record)
    said = [decision["reason"], record["sentence"], record["usable"]["sentence"]]
    said.append(decision["forgetting"].get("warning"))
    return StageResult(" ".join(filter(None, said)), record)


def _choose(params: Params) -> Record:
    """Choose among the Base, the choice of Stage 1 and the epochs of Stage 2."""
    track = language_track(params)
    first = read_record(paths.LANGUAGE_CHOICE1, "language decide")
    start = first["chosen"]
    folders = {name: paths.LANGUAGE_SCORES / name for name in dict.fromkeys((BASE, start))}
    ran = not paths.LANGUAGE_STAGE2_SKIPPED.is_file()
    if ran:
        for name in language_section(params).stage2.candidate_names:
            folders[name] = paths.LANGUAGE_STAGE2_SCORES / name
    scores = read_language_scores(
        params, {folder: find_candidate(track, name) for name, folder in folders.items()}
    )
    decision = dict(first)
    if ran:
        decision = scores.choose("language.stage2.num_epochs", "adapt it", start)
    decision["forgetting"] = scores.forgotten(decision["chosen"])
    decision["stage1_choice"] = start
    decision["stage2_ran"] = ran
    return decision


def _write_epochs_table(params: Params, ran: bool) -> None:
    """Write CER, similarity and forgetting per epoch, for `dvc plots`."""
    language = language_section(params)
    folders = {name: paths.LANGUAGE_SCORES / name for name in language.candidates}
    if ran:
        for name in language.stage2.candidate_names:
            folders[name] = paths.LANGUAGE_STAGE2_SCORES / name
    rows = []
    for order, (name, folder) in enumerate(folders.items()):
        target, source = (
            read_record(folder / part / "summary.json", language_scoring(name))
            for part in (TARGET, SOURCE)
        )
        row: Record = {"candidate": name, "order": order}
        for key in ("cer", "wer", "sim"):
            row |= interval_columns(key, target[key])
        rows.append(row | interval_columns("source_cer", source["cer"]))
    write_plot_table(paths.LANGUAGE_EPOCHS_TABLE, rows)
