"""People answer, one pair at a time, in the terminal or through an exchanged file.

Nothing here is called: *label* asks them (`label/queue.py`), because people come and go, and one answer is stored at a time.
"""

ASKS_PEOPLE = True
SCORES_TEXT = False
