"""Make the pictures of the product's own pages that the docs show, as docs/NAME.png.

    python docs/pictures.py              makes all of them
    python docs/pictures.py report …     makes these

Takes what the tests of these pages take: playwright, Debian's Chromium, the extra `tui`. Nothing is trained and nothing is
fetched: `report` is drawn from the rows in docs/results, the others show texts that are written below, answered by keys.
"""

import asyncio
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from activedpo_cli.experiments.folder import ExperimentFolder
from activedpo_cli.experiments.report import PAGE_NAME, all_tables, analysis_of, report_contents
from activedpo_cli.experiments.results import row_of
from activedpo_cli.experiments.spec import ExperimentSpec
from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import Queue
from activedpo_cli.label.tui.app import LabelApp, Sitting

DOCS = Path(__file__).resolve().parent
sys.path.append(str(DOCS.parent / "tests"))
from compared_pairs import make_comparison  # noqa: E402
from label_page import Answers, Watched, chromium, questions_about, served  # noqa: E402

EXPERIMENT = DOCS / "results" / "figure-1-tiny"
ARMS = ("random", "activedpo")
OF_TWO = {
    "title": "Built-in task, ten seeds of each method",
    "question": "Does activedpo need fewer labels than random choice on the built-in task?",
    "ceiling": None,
}
"""What the page of two of the experiment's arms says otherwise than that of all of them."""
SKY = (
    "Explain to a ten-year-old why the sky is blue.\nTwo short paragraphs at most.",
    "Sunlight looks white, but it is a mix of **all colours**. When it meets the air, the tiny molecules there scatter blue "
    "light much more than red.\n\nSo blue light comes to your eyes from every direction, and the whole sky looks blue. In "
    "the evening the light takes a longer way through the air:\n\n1. most of the blue is scattered away before it reaches "
    "you,\n2. what is left looks *orange and red*.",
    "Sunlight looks white, but it is a mix of **all colours**. When it meets the air, the tiny molecules there reflect blue "
    "light, because the air itself is blue.\n\nSo blue light comes to your eyes from every direction, and the whole sky "
    "looks blue. At night there is no light:\n\n1. most of the air is dark,\n2. what is left looks *black*.",
)
HEDGEHOGS = (
    [
        {"role": "system", "content": "Answer so that a child of eight understands it."},
        {"role": "user", "content": "Why do hedgehogs sleep through the winter?"},
    ],
    "Hedgehogs sleep in winter since it is cold and dark.\n\nThey wake up every few days, go out to eat snow, and lie down "
    "again. Some say that they count the days.",
    "A hedgehog sleeps through the winter because there is little to eat then.\n\nIt rolls up in a nest of leaves, its "
    "heart slows down from 190 beats a minute to about 20, and it lives on its fat until the spring.",
)
SECONDS_PER_ANSWER = 31.0


def report() -> None:
    """The top of the page of an experiment with two arms."""
    known = json.loads((EXPERIMENT / "experiment.json").read_text(encoding="utf-8"))
    arms = {name: known["arms"][name] for name in ARMS}
    spec = ExperimentSpec.model_validate(known | OF_TWO | {"arms": arms})
    lines = (EXPERIMENT / "results.jsonl").read_text(encoding="utf-8").splitlines()
    analysis = analysis_of([row for row in map(row_of, map(json.loads, lines)) if row.arm in ARMS], spec)
    folder = ExperimentFolder(Path("runs/two-methods"), spec)
    contents = report_contents(folder, analysis, {}, all_tables(analysis))
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / PAGE_NAME
        page.write_bytes(contents[PAGE_NAME])
        _photograph(page.as_uri(), "report", 1000, 1180)


def labelling_web() -> None:
    """The page for labelling: after twelve answers, in dark colours with differences, on a telephone with Markdown."""
    with (
        chromium() as browser,
        tempfile.TemporaryDirectory() as place,
        served(Path(place), questions_about([SKY] * 50)) as page,
    ):
        person = Watched(browser, page.address(), width=1280, height=640, reduced_motion="reduce")
        person.wait_for_pair(1)
        for _ in range(12):
            person.answer("1")
        person.wait_for_text("saved 12 of 50")
        _keep(person.page.screenshot(), "labelling-web")
        person.close()
        looks: list[tuple[str, str, str, dict[str, Any]]] = [
            ("labelling-web-dark", "d", "#first mark", {"width": 1280, "height": 640, "color_scheme": "dark"}),
            ("labelling-web-phone", "m", "#first.markdown", {"width": 360, "height": 740}),
        ]
        for name, key, shown, options in looks:
            person = Watched(browser, page.address(), reduced_motion="reduce", **options)
            person.wait_for_pair(1)
            person.press(key)
            person.wait(f"document.querySelectorAll('{shown}').length > 0")
            _keep(person.page.screenshot(), name)
            person.close()


def labelling_terminal() -> None:
    """The full screen after three answers, as textual draws it."""
    now = 0.0
    prompt, first, second = HEDGEHOGS
    questions = [Question(comparison=make_comparison(n, first, second, prompt=prompt)) for n in range(1, 13)]

    async def sit(app: LabelApp) -> str:
        nonlocal now
        async with app.run_test(size=(110, 24)) as pilot:
            await pilot.pause()
            for key in "1t2":
                now += SECONDS_PER_ANSWER
                await pilot.press(key)
                await pilot.pause()
            return app.export_screenshot(title="activedpo label --oracle human")

    with tempfile.TemporaryDirectory() as place:
        answers = Answers(Path(place) / "labels.jsonl")
        queue = Queue(questions, answers, oracle="human", seed=0, clock=lambda: now, channel="tui")
        ticket = queue.next("ann")
        assert ticket is not None
        drawn = asyncio.run(
            sit(LabelApp(Sitting(queue=queue, annotator="ann", guidelines=None, clock=lambda: now), ticket))
        )
        page = Path(place) / "index.html"
        page.write_text(f"<style>body {{ margin: 0 }} svg {{ display: block }}</style>{drawn}", encoding="utf-8")
        _photograph(page.as_uri(), "labelling-terminal", 1100, 514)


def _photograph(address: str, name: str, width: int, height: int) -> None:
    """Keep what the page shows at its top; the network is out of reach."""
    with chromium() as browser:
        page = browser.new_context(viewport={"width": width, "height": height}, offline=True).new_page()
        page.goto(address)
        _keep(page.screenshot(), name)


def _keep(picture: bytes, name: str) -> None:
    """Write a picture with 256 colours, which pages of text and lines do not need more than."""
    few = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(DOCS / f"{name}.png", optimize=True)
    print(f"wrote docs/{name}.png")


PICTURES: dict[str, Callable[[], None]] = {
    "report": report,
    "labelling-web": labelling_web,
    "labelling-terminal": labelling_terminal,
}

if __name__ == "__main__":
    for argument in sys.argv[1:] or PICTURES:
        PICTURES[argument]()
