"""What `report` prints: the page's path on stdout, each run in a sentence beside it."""

from activedpo_cli.cli.render import print_json, print_message, print_result
from activedpo_cli.reports.build import ReportResult


def print_report(result: ReportResult, *, json: bool, quiet: bool) -> None:
    """The path of the page, or with `json` all paths; messages go to stderr."""
    if json:
        figures = {name: str(path) for name, path in result.figures.items()}
        state = "done" if result.made else "up to date"
        print_json({"page": str(result.page), "figures": figures, "state": state, "summaries": result.summaries})
    elif not quiet:
        for sentence in result.summaries:
            print_message(sentence)
        print_message("✓ report made" if result.made else "✓ report is up to date", style="ok")
        print_result(str(result.page))
