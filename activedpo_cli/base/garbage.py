"""When Python's collector of garbage looks: hardly ever while libraries are imported, which makes none.

Each look walks through what is there, and with these libraries that is a million objects. A command takes a tenth less time
without these looks. Where it has loaded a model, the collector works as usual and leaves what was there before unlooked at.
"""

import gc

SELDOM = (50_000, 20, 20)
"""As `gc.set_threshold` takes them."""

_usual: tuple[int, int, int] | None = None


def look_seldom() -> None:
    """From now on, until `look_as_usual`: for a process that imports first and works later."""
    global _usual
    if _usual is None:
        _usual = gc.get_threshold()
        gc.set_threshold(*SELDOM)


def look_as_usual() -> None:
    """Back to what was before `look_seldom`, if it was called; what is there by now is never looked at again."""
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None
