"""Choose which response pairs are worth a preference label (ActiveDPO, arXiv 2505.19241)."""

__version__ = "0.1.0"
