"""The training loop, one step of it, checkpoints, and the learning-rate search."""
