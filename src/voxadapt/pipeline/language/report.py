"""Stage `language_report`: write the language's page."""

from voxadapt.core import paths
from voxadapt.core.params import Params
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.finished import check_finished, language_records
from voxadapt.reporting.language_page import write_language_report


@stage("language_report")
def run(params: Params) -> StageResult:
    """Write the language's report page."""
    check_finished(language_records(params), params)
    write_language_report(params)
    return StageResult(f"The report is {paths.LANGUAGE_REPORT}.", paths.LANGUAGE_REPORT)
