"""Whether a run is what was written, and whether a machine is fit for runs."""
