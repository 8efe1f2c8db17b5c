"""The date that chat templates read in place of the clock, so that equal settings give equal prompts on any day."""

from datetime import datetime

TEMPLATE_DATE = "26 Jul 2024"
"""What the templates of Llama 3.1 and 3.2 write by themselves where they are given no date."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def read_date(text: str) -> datetime:
    """The midnight at which a day such as `26 Jul 2024` begins; raises ValueError for anything else."""
    try:  # not by `strptime`, whose patterns take longer to make than all other settings to check
        day, month, year = text.split()
        if len(year) != 4 or not f"{day}{year}".isdecimal():
            raise ValueError(text)
        return datetime(int(year), 1 + MONTHS.index(month.capitalize()), int(day))
    except ValueError as error:
        raise ValueError(f"is a day such as `{TEMPLATE_DATE}`") from error


def checked_date(text: str) -> str:
    """The text itself; raises ValueError where it names no day."""
    read_date(text)
    return text
