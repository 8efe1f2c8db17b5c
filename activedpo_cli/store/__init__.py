"""How the files of a run are read as records, and the only code that changes them.

`tests/test_architecture.py` names the exceptions.
"""
