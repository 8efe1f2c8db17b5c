"""Language models: loading, text to tokens, adapters, global random state."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # as it is loaded it names a kernel that is not wanted here
