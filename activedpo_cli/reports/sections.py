"""The sections of the page in their order; what was not measured has none."""

from collections.abc import Sequence

from activedpo_cli import __version__
from activedpo_cli.reports.cost_section import cost_section
from activedpo_cli.reports.label_section import label_section
from activedpo_cli.reports.origin_section import origin_section
from activedpo_cli.reports.reward_section import reward_section
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.sample_section import sample_section
from activedpo_cli.reports.section import Section
from activedpo_cli.reports.seed_section import seed_section
from activedpo_cli.reports.selection_section import selection_section
from activedpo_cli.reports.training_section import training_section


def all_sections(runs: Sequence[RunData]) -> list[Section]:
    """Rewards, seeds, selection, labels, training, cost, samples, origin."""
    makers = (
        reward_section,
        seed_section,
        selection_section,
        label_section,
        training_section,
        cost_section,
        sample_section,
    )
    found = [maker(runs) for maker in makers]
    return [*(section for section in found if section), origin_section(runs, __version__)]
