"""People answer, one pair at a time: at a terminal, on a page in their browsers (`--web`), or in files of other tools.

Nothing here is called: *label* asks them (`label/queue.py`), because people come and go, and one answer is stored at a time.
"""

ASKS_PEOPLE = True
SCORES_TEXT = False
