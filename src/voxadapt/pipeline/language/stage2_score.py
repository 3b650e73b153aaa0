"""Stage `language_stage2_score`: speak and score with every epoch of Stage 2, if it was run."""

import shutil

from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.core.lineage import SPEAKING_LANGUAGE, check_made, write_made
from voxadapt.core.params import Params, language_section
from voxadapt.core.paths import LANGUAGE
from voxadapt.core.records import read_record
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.candidates import find_candidate
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.language.speak_and_score import languages_sentence, score_languages
from voxadapt.pipeline.tracks import language_track


@stage("language_stage2_score")
def run(params: Params) -> StageResult:
    """Score every epoch of Stage 2; where it was not run, say so."""
    inputs = [LANGUAGE.made_by_audit, LANGUAGE.made_reference]
    check_made([*inputs, paths.MADE_BY_STAGE2], params)
    result = _score(params)
    made, written = paths.MADE_BY_STAGE2_SCORES, [paths.LANGUAGE_STAGE2_SCORES]
    write_made(made, "language stage2-score", written, inputs, params, SPEAKING_LANGUAGE)
    return result


def _score(params: Params) -> StageResult:
    folder, skipped = paths.LANGUAGE_STAGE2_SCORES, paths.LANGUAGE_STAGE2_SKIPPED
    if skipped.is_file():
        record = read_record(skipped, "language stage2")
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / skipped.name, record)
        return StageResult(f"There is nothing to score: Stage 2 is skipped. {record['reason']}")
    (folder / skipped.name).unlink(missing_ok=True)
    track, context, sentences = language_track(params), open_context(params), []
    for name in language_section(params).stage2.candidate_names:
        candidate = find_candidate(track, name)
        summaries = score_languages(params, context, candidate, "selection", folder / name)
        sentences.append(languages_sentence(params, name, summaries))
    return StageResult(" ".join(sentences))
