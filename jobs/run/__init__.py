"""What a training run is, and how it is launched on Ray."""
