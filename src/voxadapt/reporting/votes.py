"""What listeners' votes say, for the report page."""

from __future__ import annotations

from voxadapt.core import paths
from voxadapt.core.files import read_json
from voxadapt.core.records import Record
from voxadapt.listening.votes import KEY_FILE, VOTES_FILE
from voxadapt.reporting.records import Records

ASKED = {  # columns of the report
    "likeness": "closer to the voice",
    "speech": "better spoken",
    "naturalness": "natural",
}
TONES = {"preferred": "good", "rejected": "bad", "undecided": "unsure"}


def votes_section(records: Records) -> Record | None:
    """Prepare the votes for the report page.

    Args:
        records: Their `root` is where `reports/listen` lies.

    Returns:
        None without votes. Else `stale` (they were given to other clips than the present ones, and
        nothing of them is to be shown), `num_listeners`, `num_votes`, `num_texts`, `split`,
        `comparisons` (each `question`, `first`, `second`, `preference` for the second as an
        interval, `wins`, `losses`, `ties`, `verdict`, `tone`, `sentence`), `asked` and `ratings`
        (each `candidate` and `means`, an interval for each of `asked`), `differences` (each
        `question`, `first`, `second`, `difference`), `steadiness` and `method`.
    """
    folder = records.root / paths.LISTEN
    try:
        votes = read_json(folder / VOTES_FILE)
        key = read_json(folder / KEY_FILE)
    except (OSError, ValueError):
        return None
    current = {kind: page["page_sha"] for kind, page in key["pages"].items()}
    asked = list(dict.fromkeys(item["question"] for item in votes["ratings"]))
    repeated = sum(item["num_repeated"] for item in votes["listeners"])
    agreed = sum(item["num_agreed"] for item in votes["listeners"])
    return {
        "stale": votes["pages"] != current,
        "num_listeners": votes["num_listeners"],
        "num_votes": votes["num_votes"],
        "num_texts": max((item["num_texts"] for item in votes["comparisons"]), default=0),
        "split": votes["split"],
        "comparisons": [
            {
                **item,
                "question": ASKED[item["question"]],
                "first": item["pair"][0],
                "second": item["pair"][1],
                "tone": TONES[item["verdict"]],
            }
            for item in votes["comparisons"]
        ],
        "asked": [ASKED[question] for question in asked],
        "ratings": [
            {
                "candidate": name,
                "means": [
                    item["mean"]
                    for question in asked
                    for item in votes["ratings"]
                    if (item["candidate"], item["question"]) == (name, question)
                ],
            }
            for name in dict.fromkeys(item["candidate"] for item in votes["ratings"])
        ],
        "differences": [
            {
                **item,
                "question": ASKED[item["question"]],
                "first": item["pair"][0],
                "second": item["pair"][1],
            }
            for item in votes["rating_differences"]
        ],
        "steadiness": f"Of {repeated} answers that were asked for twice, {agreed} were the same."
        if repeated
        else "",
        "method": votes["method"],
    }
