"""Language models: loading, text to tokens, log-probabilities, training. `dpo` alone touches TRL."""
