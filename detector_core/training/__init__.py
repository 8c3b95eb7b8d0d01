"""The training loop, one step of it, and what a run can be resumed from."""
