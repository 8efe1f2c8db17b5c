"""What gradient features cost on a model and a machine. Runs where only torch, transformers and peft are installed."""
