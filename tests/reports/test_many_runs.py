"""With many runs the page stays readable: runs of a group look alike, and what is long folds away."""

import base64
import re
from html.parser import HTMLParser

import pytest
from report_page import made_up_run

from activedpo_cli.reports.drawing import PALETTE, draw
from activedpo_cli.reports.page import Section, Summary, render_page, table
from activedpo_cli.reports.plot import Panel, Plot
from activedpo_cli.reports.rewards import reward_section
from activedpo_cli.reports.run_data import Answered, Evaluation, RunData, SampledText, Scorer
from activedpo_cli.reports.samples import sample_section
from activedpo_cli.reports.seeds import look_note, run_looks


def run(method: str, seed: int, name: str | None = None, **settings: object) -> RunData:
    """A run with two evaluations and a sample; the initial model's response depends on the seed alone."""
    scorer = Scorer("judge")
    numbers = {"n": 4, "reward_mean": 0.5, "reward_mean_initial": 0.5, "reward_ci_low": 0.4, "reward_ci_high": 0.6}
    numbers |= {"win_rate": 0.5, "win_rate_ci_low": 0.3, "win_rate_ci_high": 0.7}
    texts = [SampledText(response_id="r", text=text, left_out=0, was_cut_off=False, reward=None) for text in ("a", "b")]
    return made_up_run(
        method,
        seed,
        name or "",
        settings={"seed": [seed]} | {key: [value] for key, value in settings.items()},
        evaluations=[
            Evaluation(
                iteration=t,
                source=f"iter-{t:03d}/evaluate",
                labels_spent=10 * t,
                scorer=scorer,
                second_scorer=None,
                metrics=numbers,
            )
            for t in (0, 1)
        ],
        samples=[
            Answered(
                prompt_id="p000001",
                prompt=f"prompt of seed {seed}",
                iteration=1,
                labels_spent=10,
                initial=texts[0],
                last=texts[1],
            )
        ],
    )


TWENTY = [run(method, seed) for method in ("activedpo", "random") for seed in range(10)]


TOP = Summary(message="m", answers=[])


class Open(HTMLParser):
    """What of a page is seen before anything is unfolded."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.depth = 0
        self.images: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.depth += tag == "details"
        if tag == "img" and not self.depth:
            self.images.append(dict(attrs)["alt"] or "")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "details"

    def handle_data(self, data: str) -> None:
        if not self.depth:
            self.text += data


def plot_of(name: str, panels: int) -> Plot:
    made = [Panel(title=str(place), x_label="", y_label="", series=[]) for place in range(panels)]
    return Plot(name=name, title=name, caption=f"how to read {name}", alternative=name, panels=made)


def test_runs_of_a_group_share_colour_and_name_where_they_are_many() -> None:
    looks = run_looks([*TWENTY, run("random", 0, "alone", beta=1)])
    assert {(look.colour, look.group) for look in looks[:10]} == {(0, "activedpo (10 seeds)")}
    assert {(look.colour, look.group) for look in looks[10:20]} == {(1, "random (10 seeds)")}
    assert (looks[20].colour, looks[20].group) == (2, None)
    assert "one colour" in look_note(looks)


def test_few_runs_and_runs_without_siblings_have_their_own_colour() -> None:
    for runs in (TWENTY[6:14], [run("random", seed, beta=seed) for seed in range(9)]):
        looks = run_looks(runs)
        assert [(look.colour, look.group) for look in looks] == [(place, None) for place in range(len(runs))]
        assert look_note(looks) == ""


def test_numbers_keep_the_names_of_their_runs() -> None:
    plot = next(plot for plot in reward_section(TWENTY).plots if plot.name == "reward")
    rows = plot.panels[0].series
    assert [row.label for row in rows] == [run.name for run in TWENTY]
    assert [row.group for row in rows] == ["activedpo (10 seeds)"] * 10 + ["random (10 seeds)"] * 10
    assert {tuple(row.low) for row in rows} == {(0.4, 0.4)}
    assert "thin lines of one colour" in plot.caption


def test_a_group_has_one_name_and_thin_lines_without_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    paint = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: (drawn.append(figure), paint(figure, renderer)))
    draw(next(plot for plot in reward_section(TWENTY).plots if plot.name == "reward"))
    (axes,) = drawn[0].axes
    assert not drawn[0].legends
    names = [text.get_text().replace("\n", " ") for text in axes.texts]
    assert names == ["activedpo (10 seeds)", "random (10 seeds)"]
    assert [line.get_color() for line in axes.lines] == [PALETTE[0]] * 10 + [PALETTE[1]] * 10
    assert {line.get_marker() for line in axes.lines} == {""}
    assert len(axes.collections) == 0  # no bands
    drawn.clear()
    draw(next(plot for plot in reward_section(TWENTY[:2]).plots if plot.name == "reward"))
    assert len(drawn[0].axes[0].collections) == 2
    assert drawn[0].axes[0].lines[0].get_linewidth() > axes.lines[0].get_linewidth()


def test_samples_are_of_four_runs_from_all_groups() -> None:
    section = sample_section([*TWENTY, run("random", 0, "alone", beta=1)])
    headings = [heading.split(",")[0] for sample in section.samples for heading, _ in sample.texts]
    shown = {heading for heading in headings if heading != "initial model"}
    assert shown == {"activedpo-0", "random-0", "activedpo-1", "random-1"}
    assert len(section.samples) == 2  # equal seeds beside each other
    assert "Only activedpo-0, activedpo-1, random-0 and random-1 are shown" in section.sentences[-1]
    few = sample_section(TWENTY[:4])
    assert sum(len(sample.texts) - 1 for sample in few.samples) == 4
    assert len(few.sentences) == 1


def test_long_tables_are_folded() -> None:
    assert table("t", ["a"], [["x"]] * 120).is_folded
    assert not table("t", ["a"], [["x"]] * 12).is_folded


def test_what_is_long_is_folded_and_what_it_means_is_not() -> None:
    section = Section(
        anchor="a",
        title="A",
        sentences=["a warning"] * 20,
        run_sentences=[f"{run.name} says" for run in TWENTY],
        plots=[plot_of("many", 20), plot_of("few", 8)],
        tables=[table("long", ["c"], [["cell"]] * 120)],
    )
    images = {"many": [b"<svg/>"] * 20, "few": [b"<svg/>"] * 8}
    seen = Open(render_page("t", TOP, [f"summary {run.name}" for run in TWENTY], [section], images))
    assert seen.images == [f"few {place}:" for place in range(8)]
    assert "how to read many" in seen.text
    assert seen.text.count("a warning") == 20
    assert not re.search("random-3|cell", seen.text)
    short = Section(anchor="a", title="A", run_sentences=["one says"])
    assert "one says" in Open(render_page("t", TOP, ["summary of one"], [short], {})).text


def test_folded_figures_are_in_the_page() -> None:
    page = render_page(
        "t", TOP, [], [Section(anchor="a", title="A", plots=[plot_of("many", 20)])], {"many": [b"<svg/>"] * 20}
    )
    assert base64.b64encode(b"<svg/>").decode() in page
