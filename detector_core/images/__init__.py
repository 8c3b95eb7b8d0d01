"""Bytes to pixels, and pixels to what a network takes."""
