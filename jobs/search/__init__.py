"""What a learning-rate search is, and how Ray Tune runs it."""
