"""A run in one sentence."""

from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.wording import number, share


def summary_sentence(run: RunData) -> str:
    """`tldr (activedpo): reward 0.36 → 0.87 after 80 labels, win rate 92.5 % against the initial model`."""
    name = f"{run.name} ({', '.join(run.methods)})" if run.methods and run.methods != [run.name] else run.name
    evaluated = [row for row in run.evaluations if row.iteration]
    if not evaluated:
        spent = sum(row.labels_spent for row in run.labels)
        return f"{name}: {spent} labels spent, no policy evaluated yet"
    last = evaluated[-1]
    metrics, facts = last.metrics, []
    if metrics.get("reward_mean") is not None:
        change = f"{number(metrics['reward_mean_initial'], 2)} → {number(metrics['reward_mean'], 2)}"
        facts.append(f"reward {change} after {last.labels_spent} labels")
        facts.append(f"win rate {share(metrics['win_rate'])} against the initial model")
    if metrics.get("preference_accuracy") is not None:
        facts.append(f"preference accuracy {share(metrics['preference_accuracy'])}")
    if not facts:
        facts.append(f"evaluated after {last.labels_spent} labels, nobody scored")
    return f"{name}: {', '.join(facts)}"
