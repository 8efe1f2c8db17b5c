"""The promises about selection at full size, run by name: `pytest -n 0 tests/benchmarks/million_candidates.py`.

Takes minutes on two cores that do nothing else, and 1 GB of the temporary folder.
"""

import json

import pytest
from command_line import done


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_speed_memory_and_passes() -> None:
    found = json.loads(done("bench", "select", "--json").stdout)
    assert found["same_picks"]
    assert found["seconds"] < 1
    assert found["ratio_to_sherman_morrison"] >= 4
    assert found["ratio_to_textbook"] >= 30
    streamed = found["streamed"]
    assert streamed["same_picks"]
    assert streamed["peak_memory_bytes"] <= 1.5e9
    assert streamed["passes"] <= streamed["budget"] / 3
