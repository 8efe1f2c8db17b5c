"""The pairs of a stage as whoever answers is asked about them."""

from activedpo_cli.base.records import SelectedPair
from activedpo_cli.oracles.base import Comparison
from activedpo_cli.store.run import Run


def questions(run: Run, iteration: int) -> list[Comparison]:
    """The selected pairs of an iteration with their texts, in the order of the selection."""
    responses = {response.response_id: response for response in run.responses(iteration)}
    prompts = {prompt.prompt_id: prompt.prompt for prompt in run.prompts()}
    selected = run.stage("select", iteration).read_rows("selection.jsonl", SelectedPair)
    return [
        Comparison(
            pair_id=pair.pair_id,
            prompt=prompts[pair.prompt_id],
            response_a=responses[pair.response_a_id],
            response_b=responses[pair.response_b_id],
        )
        for pair in selected
    ]
