"""Between the page and the queue: what the page is told, and what its requests mean.

The page knows pairs by opaque names, which say nothing about where a pair or a response came from. They are derived from a
key of the run, so that a server that was started again understands the answers of pages that were open before.
"""

import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from activedpo_cli.base.display import display_text
from activedpo_cli.base.errors import RefusedError
from activedpo_cli.base.records import Asked, Response, prompt_as_text
from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import Answer, Choice, Queue, Ticket, shown_sides
from activedpo_cli.label.web.access import Access, Person
from activedpo_cli.label.web.security import TurnedAwayError
from activedpo_cli.label.web.tokens import markdown_nodes
from activedpo_cli.label.word_differences import marked_words
from activedpo_cli.label.wording import shown_text
from activedpo_cli.oracles.base import Comparison

CHOICES: tuple[Choice, ...] = ("first", "second", "tie", "both_bad", "skip")
VIEWS = ("text", "markdown", "differences")
LONGEST_NOTE = 10_000
LONGEST_SECONDS = 1e7
MOST_BESIDES = 100
_ANSWER_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")


class UnknownPairError(RefusedError):
    """A page names a pair that is not one of those asked about, as it does after the stage was made again."""


class Desk:
    """The pairs of a stage for the people of a page. What changes the queue must not be called by two threads at once.

    Args:
        queue: The queue.
        questions: What it asks.
        access: The people, and the names that the page has for pairs.
        seed: The run's seed, which shuffles the sides.
        clock: The queue's.
        guidelines: A text that people can call up.

    """

    def __init__(
        self,
        queue: Queue,
        questions: Sequence[Question],
        access: Access,
        *,
        seed: int,
        clock: Callable[[], float] = time.monotonic,
        guidelines: str | None = None,
    ) -> None:
        self._queue = queue
        self._comparisons = {question.comparison.pair_id: question.comparison for question in questions}
        self._access = access
        self._seed = seed
        self._clock = clock
        self._guidelines = guidelines
        self._names: dict[str, dict[str, Asked]] = {}
        self._tickets: dict[Asked, Ticket] = {}
        self.answers_by: dict[str, int] = {person.name: 0 for person in access.people}

    def welcome(self, person: Person) -> dict[str, Any]:
        """What the page needs before the first pair."""
        guidelines = self._guidelines
        return {
            "run": self._access.run_id,
            "person": person.person_id,
            "name": display_text(person.name),
            "guidelines": None if guidelines is None else display_text(guidelines),
            "guidelines_markdown": None if guidelines is None else _nodes_or_none(guidelines),
            **self.progress(person),
        }

    def next(self, person: Person, said: Mapping[str, Any]) -> dict[str, Any]:
        """The pair to show or to keep ready; `besides` are those that the page has on its screen or has answered."""
        names = said.get("besides", [])
        if not isinstance(names, list) or len(names) > MOST_BESIDES:
            raise TurnedAwayError(400, "`besides` is no list of pairs")
        besides = [asked for asked in (self._known(person, name) for name in names) if asked]
        self._queue.keep(person.name, besides)
        ticket = self._queue.next(person.name, [asked.pair_id for asked in besides])
        if ticket is None:
            return {"pair": None, **self.progress(person)}
        self._tickets[ticket.asked] = ticket
        return {"pair": self._pair(person, ticket), **self.progress(person)}

    def answer(self, person: Person, said: Mapping[str, Any]) -> dict[str, Any]:
        """Store an answer; it is on the disk when this returns. One that came before is not stored again.

        Raises:
            TurnedAwayError: It is not an answer.
            UnknownPairError: Its pair is not asked about.
            PairAnsweredError: The person has answered the pair, and otherwise.

        """
        asked = self._asked(person, said)
        answer = _answer(said, self._answer_id(said))
        receipt = self._queue.answer(self._tickets.get(asked) or self._ticket_of_before(asked), answer)
        self._tickets.pop(asked, None)
        self.answers_by[person.name] += receipt.arrival != "repeated"
        return {"saved": True, **self.progress(person)}

    def undo(self, person: Person, said: Mapping[str, Any]) -> dict[str, Any]:
        """Take back an answer, by the name that the page has made for it; nothing happens where it does not stand.

        Its note goes back to the page, whose text it is.
        """
        self._asked(person, said)
        label = self._queue.undo(person.name, self._answer_id(said))
        if label is not None:
            self.answers_by[person.name] = max(0, self.answers_by[person.name] - 1)  # it may be of an earlier sitting
        return {"undone": label is not None, "note": label.note if label else None, **self.progress(person)}

    def look(self, person: Person, said: Mapping[str, Any]) -> dict[str, Any]:
        """The texts of a pair in another view; reads nothing that changes, so that any thread may call it."""
        prompt, first, second = self._texts(self._asked(person, said))
        if said.get("view") == "markdown":
            nodes = [markdown_nodes(text) for text in (prompt, first, second)]
            refused = next((found for found in nodes if isinstance(found, str)), None)
            return {"refused": refused} if refused else {"prompt": nodes[0], "first": nodes[1], "second": nodes[2]}
        if said.get("view") == "differences":
            marked = marked_words(first, second)
            return {"refused": marked} if isinstance(marked, str) else {"first": marked[0], "second": marked[1]}
        raise TurnedAwayError(400, "there is no such view")

    def look_around(self) -> dict[str, Any]:
        """How far the answers are, also by what other commands have added."""
        self._queue.tidy()
        return self.progress()

    def progress(self, person: Person | None = None) -> dict[str, Any]:
        """How many of the answers are there, by whomever, and whether nothing is left to ask, of this person too."""
        name = person.name if person else None
        progress = self._queue.progress(name)
        return {
            "answered": progress.given,
            "pairs": progress.most,
            "others": progress.waiting + progress.held,
            "is_done": self._queue.is_all_answered(name),
        }

    def _pair(self, person: Person, ticket: Ticket) -> dict[str, Any]:
        return {
            "id": self._name(person, ticket.asked),
            **dict(zip(("prompt", "first", "second"), self._texts(ticket.asked), strict=True)),
            "kept_seconds": ticket.until - self._clock(),
        }

    def _texts(self, asked: Asked) -> tuple[str, str, str]:
        """Prompt and responses as this person sees them, harmless to show."""
        comparison = self._comparisons[asked.pair_id]
        first, second = self._sides(comparison, asked)
        return shown_text(prompt_as_text(comparison.prompt)), shown_text(first.text), shown_text(second.text)

    def _sides(self, comparison: Comparison, asked: Asked) -> tuple[Response, Response]:
        return shown_sides(comparison, str(asked.annotator), self._seed, is_repeat=asked.is_repeat)

    def _ticket_of_before(self, asked: Asked) -> Ticket:
        """A ticket for a pair that another server, or another page of this person, was given."""
        comparison = self._comparisons[asked.pair_id]
        return Ticket(
            ticket_id=uuid.uuid4().hex,
            annotator=str(asked.annotator),
            comparison=comparison,
            sides=self._sides(comparison, asked),
            since=0.0,
            until=0.0,
            is_repeat=asked.is_repeat,
        )

    def _name(self, person: Person, asked: Asked) -> str:
        return self._access.derived("pair", person.name, asked.pair_id, asked.is_repeat)

    def _known(self, person: Person, name: Any) -> Asked | None:
        if person.name not in self._names:
            all_asked = (Asked(pair, person.name, again) for pair in self._comparisons for again in (False, True))
            self._names[person.name] = {self._name(person, asked): asked for asked in all_asked}
        return self._names[person.name].get(name) if isinstance(name, str) else None

    def _asked(self, person: Person, said: Mapping[str, Any]) -> Asked:
        asked = self._known(person, said.get("pair"))
        if asked is None:
            raise UnknownPairError("this pair is no longer asked about")
        return asked

    def _answer_id(self, said: Mapping[str, Any]) -> str:
        """What the page calls its answer, with the pair before it: the same name for another pair is another answer."""
        answer_id = said.get("answer_id")
        if not isinstance(answer_id, str) or not _ANSWER_ID.fullmatch(answer_id):
            raise TurnedAwayError(400, "the answer has no name")
        return f"{said['pair']}.{answer_id}"


def _answer(said: Mapping[str, Any], answer_id: str) -> Answer:
    choice, note, seconds, view = (said.get(key) for key in ("choice", "note", "seconds", "view"))
    if choice not in CHOICES or view not in VIEWS:
        raise TurnedAwayError(400, "this is no answer")
    if note is not None and (not isinstance(note, str) or len(note) > LONGEST_NOTE):
        raise TurnedAwayError(400, "the note is too long, or no text")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_SECONDS:
        raise TurnedAwayError(400, "the answer does not say how long it took")
    written = note.encode("utf-8", "replace").decode().strip() if note else ""  # half a character can't be stored
    return Answer(choice=choice, note=written or None, seconds=float(seconds), answer_id=answer_id, view=view)


def _nodes_or_none(text: str) -> Iterable[Any] | None:
    nodes = markdown_nodes(text)
    return None if isinstance(nodes, str) else nodes
