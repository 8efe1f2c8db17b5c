"""Per-response LoRA gradients and their random projection."""
