"""The paper's artefacts: one file for each table or figure, and the one table of them.

Each file has the artefact's rows for CSV, its table for people, and what makes both.
"""

from collections.abc import Callable
from functools import partial

from experiments.paper.artefacts.figure5 import make_figure5
from experiments.paper.artefacts.figures_2_to_4 import make_decay, make_flow_figure
from experiments.paper.artefacts.making import Artefact, Request
from experiments.paper.artefacts.released_curves import make_released_curves
from experiments.paper.artefacts.table4 import make_table4
from experiments.paper.artefacts.table5 import make_table5, make_warm
from experiments.paper.artefacts.tables_1_to_3 import make_table

ARTEFACTS: dict[str, Callable[[Request], Artefact]] = {
    "table5": make_table5,
    "figure2": partial(make_flow_figure, "figure2"),
    "figure3": partial(make_flow_figure, "figure3"),
    "figure4": partial(make_flow_figure, "figure4"),
    "figure5": make_figure5,
    "table1": partial(make_table, "table1"),
    "table2": partial(make_table, "table2"),
    "table3": partial(make_table, "table3"),
    "table4": make_table4,
    "released": make_released_curves,
    "decay": make_decay,
    "warm": make_warm,
}
