"""Grafana's dashboards as code: `python docker/grafana/make.py` writes docker/grafana/dashboards/*.json, to be provisioned.

A test checks that the committed files are what this gives, and holds them to the rules of Grafana's dashboard linter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from panels import CONSUMERS, OVERVIEW, PRODUCERS, Board, Panel
from panels_more import BROKER, REGISTRY, SHARDS, TABLES

HERE = Path(__file__).parent
BOARDS = (OVERVIEW, PRODUCERS, CONSUMERS, SHARDS, TABLES, REGISTRY, BROKER)
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
ALL = 'job=~"$job", instance=~"$instance"'
MATCHERS = {
    "@S": f'stream=~"$stream", {ALL}',
    "@G": f'stream=~"$stream", group=~"$group", {ALL}',
    "@T": f'table=~"$table", {ALL}',
    "@A": ALL,
}
HEIGHT = 8


def build(board: Board) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.meaning)
        .tags(["headrace"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Headrace")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["headrace"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", "up"))
        .with_variable(_variable("instance", 'up{job=~"$job"}'))
    )
    for name, metric in board.variables:
        made = made.with_variable(_variable(name, f"{metric}{{{ALL}}}"))
    # Where the runbooks are for those who look: their own copy of the docs.
    made = made.with_variable(
        dashboard.TextBoxVariable("runbooks")
        .label("Runbooks")
        .default_value("/public/runbooks")
        .hide(models.VariableHide.HIDE_VARIABLE)
    )
    for number, panel in enumerate(board.panels, 1):
        made = made.with_panel(_panel(panel).id(number))
    content: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    return content


def _variable(name: str, metric: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query({"query": f"label_values({metric}, {name})", "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .include_all(True)
        .all_value(".*")  # also an empty database matches, and series without the label
        .multi(True)
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> Any:
    kind = timeseries.Panel() if panel.kind == "timeseries" else stat.Panel()
    made = kind.title(panel.title).description(panel.meaning).datasource(SOURCE).unit(panel.unit).span(panel.width).height(HEIGHT)
    if panel.kind == "timeseries":
        made = (
            made.fill_opacity(30 if panel.stacked else 8)
            .show_points(common_models.VisibilityMode.NEVER)
            .legend(
                common.VizLegendOptions()
                .display_mode(common_models.LegendDisplayMode.LIST)
                .placement(common_models.LegendPlacement.BOTTOM)
                .show_legend(True)
            )
        )
        if panel.stacked:
            made = made.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if panel.runbook:
        link = dashboard.DashboardLink("Runbook").type(models.DashboardLinkType.LINK)
        made = made.links([link.url(f"${{runbooks}}/{panel.runbook}.md").target_blank(True)])
    for index, (expression, legend) in enumerate(panel.queries):
        for mark, matchers in MATCHERS.items():
            expression = expression.replace(mark, matchers)
        made = made.with_target(
            prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + index)).datasource(SOURCE)
        )
    return made


def files() -> dict[str, str]:
    """File name → content."""
    return {f"{board.uid}.json": json.dumps(build(board), indent=1, sort_keys=True) + "\n" for board in BOARDS}


if __name__ == "__main__":
    for name, text in files().items():
        (HERE / "dashboards" / name).write_text(text, encoding="utf-8")
