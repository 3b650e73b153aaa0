"""What listeners' votes say, for the report page."""

from voxadapt.core import paths
from voxadapt.core.files import json_or_none
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

    Returns:
        None without votes. Else figures and sentences for the page; `stale` where the votes were
        given to other clips than the present ones, and nothing of them is to be shown.
    """
    folder = records.root / paths.LISTEN
    votes, key = json_or_none(folder / VOTES_FILE), json_or_none(folder / KEY_FILE)
    if votes is None or key is None:
        return None
    current = {kind: page["page_sha"] for kind, page in key["pages"].items()}
    asked = list(dict.fromkeys(item["question"] for item in votes["ratings"]))
    repeated = sum(item["num_repeated"] for item in votes["listeners"])
    agreed = sum(item["num_agreed"] for item in votes["listeners"])

    def worded(item: Record) -> Record:
        first, second = item["pair"]
        named = {"question": ASKED[item["question"]], "first": first, "second": second}
        return {**item, **named, "tone": TONES.get(item.get("verdict", ""))}

    means = {(item["candidate"], item["question"]): item["mean"] for item in votes["ratings"]}
    return {
        "stale": votes["pages"] != current,
        "num_listeners": votes["num_listeners"],
        "num_votes": votes["num_votes"],
        "comparisons": [worded(item) for item in votes["comparisons"]],
        "asked": [ASKED[question] for question in asked],
        "ratings": [
            {"candidate": name, "means": [means[name, question] for question in asked]}
            for name in dict.fromkeys(item["candidate"] for item in votes["ratings"])
        ],
        "differences": [worded(item) for item in votes["rating_differences"]],
        "steadiness": f"Of {repeated} answers that were asked for twice, {agreed} were the same."
        if repeated
        else "",
        "method": votes["method"],
    }
