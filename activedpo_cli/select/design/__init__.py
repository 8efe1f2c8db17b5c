"""V, the design matrix, and the exact greedy choice by ‖φ‖ in V⁻¹ (paper Eq. 3 and 4), on tensors alone."""
