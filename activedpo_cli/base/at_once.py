"""Work on several things at once in threads, with results in order, and an end that waits for nobody after Ctrl-C."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from activedpo_cli.base.interruption import is_requested

Item = TypeVar("Item")
Result = TypeVar("Result")


def each_in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    *,
    ending: threading.Event,
    give_up: Callable[[], None],
) -> Iterator[Result]:
    """The results of a function, in the order of the items, of which `workers` are worked on at once.

    Where the reader stops reading, or a result is an exception, be it one that is not read yet, `ending` is set, no further
    item is begun, and those that were begun are waited for. After an interruption `give_up` is called instead, and the
    threads end with the process.
    """
    shared = _Shared(function, items, ending)
    number = min(workers, len(items))
    threads = [threading.Thread(target=shared.work, daemon=True) for _ in range(number)] if number > 1 else []
    try:
        for thread in threads:
            thread.start()
        for place in range(len(items)):
            if not threads:
                shared.do_next()
            yield shared.result(place)
    except (KeyboardInterrupt, SystemExit):
        give_up()
        ending.set()
        raise
    except BaseException:
        ending.set()
        if is_requested():
            give_up()
        else:
            for thread in threads:
                thread.join()
        raise


class _Shared(Generic[Item, Result]):
    """Items that are left, and the results or exceptions of those that are done."""

    def __init__(self, function: Callable[[Item], Result], items: Sequence[Item], ending: threading.Event) -> None:
        self._function = function
        self._items = items
        self._ending = ending
        self._begun = 0
        self._done: dict[int, Result | BaseException] = {}
        self._changed = threading.Condition()

    def work(self) -> None:
        """Do what nobody has begun, until nothing is left or the work ends."""
        while self.do_next():
            pass

    def do_next(self) -> bool:
        """Do one item; False where none is left to begin."""
        with self._changed:
            place = self._begun
            if place == len(self._items) or self._ending.is_set():
                return False
            self._begun += 1
        try:
            found: Result | BaseException = self._function(self._items[place])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            found = error
            self._ending.set()  # all items before this one were begun, so that its place is reached
        with self._changed:
            self._done[place] = found
            self._changed.notify_all()
        return True

    def result(self, place: int) -> Result:
        """The result at a place once it is there; raises the exception that came in its stead."""
        with self._changed:
            self._changed.wait_for(lambda: place in self._done)
            found = self._done.pop(place)
        if isinstance(found, BaseException):
            raise found
        return found
