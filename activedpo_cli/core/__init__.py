"""The paper's formulas as pure functions on tensors: no files, no models, no printing."""
