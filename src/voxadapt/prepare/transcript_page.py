"""The table of transcripts as a page: a player beside every text, saved as the table again."""

import json
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from voxadapt.core.templating import inline
from voxadapt.reporting.components import TEMPLATES, environment


def build(rows: Sequence[Mapping[str, str]], name: str, table: str) -> str:
    """Build the page."""
    columns = list(rows[0])
    data = json.dumps({"name": table, "columns": columns, "rows": list(rows)}, ensure_ascii=False)
    for mark, code in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        data = data.replace(mark, code)  # no text ends the script that holds it
    script, template = inline(TEMPLATES / "transcripts.js"), "transcripts.html.j2"
    page = environment().get_template(template)
    return page.render(rows=rows, name=name, table=table, script=script, data=Markup(data))
