"""A run as one self-contained web page: no network, no fonts or scripts from elsewhere, opened from disk."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from tunesmith.report import before, figures, wording
from tunesmith.report import compared as comparing
from tunesmith.report.charts import accuracy_chart
from tunesmith.report.read import RunFiles, read_run
from tunesmith.rundir import RunDir

__all__ = ["write_report"]


def write_report(run: RunDir) -> Path:
    """Write `report.html` from the files of the run directory, and from nothing else.

    Files that are missing or torn, as in an interrupted run, are named on the page; what can be shown is shown.
    The page replaces an older one in one step.

    Returns:
        The page's path.
    """
    page = render(read_run(run))
    staged = run.report.with_name(f".{run.report.name}.writing")
    # Text from a model may hold lone surrogates, which UTF-8 cannot write.
    staged.write_bytes(page.encode("utf-8", errors="replace"))
    os.replace(staged, run.report)
    return run.report


def render(files: RunFiles) -> str:
    """The page as HTML. Every text from the run is escaped; a content security policy allows only our own script."""
    script, style = _part("page.js"), _part("page.css")
    sets = figures.test_sets(files)
    charts = figures.charts(files)
    compared = [c for one in sets if (c := one.comparison).base or c.tuned]
    return _template().render(
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),
        run=files,
        summary=files.summary,
        name=files.summary.get("name") or files.settings.get("name") or files.root.name,
        sets=sets,
        lead=figures.lead(sets),
        accuracy=accuracy_chart(compared) if compared else None,
        charts=charts,
        stages=figures.stages(files.summary),
        failures={one.name: found for one in sets if (found := figures.failures(files, one.name))},
        slices=comparing.slices(files),
        others=comparing.others(files),
        trust=comparing.trust(files.summary),
        rows=figures.rows(files),
        families=before.families(files),
        receipt=before.receipt(files),
        forecast=figures.forecast(files),
        components=figures.components(files),
        exports=figures.exports(files.summary),
        settings=figures.settings(files),
        graded=sum(len(models.get("tuned") or models.get("base") or ()) for models in files.scores.values()),
        data=embedded(
            {
                **figures.examples(files, [one.name for one in sets]),
                "charts": [chart.data for chart in charts],
            }
        ),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=wording.percent, points=wording.points, count=wording.count, duration=wording.duration,
        size=wording.size, figure=wording.figure, moment=wording.moment, words=wording.words, p_value=wording.p_value,
        href=lambda path: quote(str(path)),
    )  # fmt: skip
    environment.globals.update(
        number=figures.number, section=figures.section, interval=wording.interval, flat=figures.flat
    )
    return environment.from_string(_part("page.html"))


def embedded(value: Any) -> Markup:
    """JSON that cannot end its script element, open a comment, or break a line that JavaScript counts."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=str)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _part(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")
