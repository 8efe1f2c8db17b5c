"""What each whole process that tests start does first: it lets the garbage collector come less often.

Imports make no garbage, and walking what they make takes a sixth of their time.
"""

import gc

gc.set_threshold(50_000, 20, 20)
