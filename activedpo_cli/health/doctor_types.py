"""What a check of the machine comes to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: its `state` is ok, warning or failure; `do` is empty where nothing is to be done."""

    name: str
    state: str
    says: str
    do: str
