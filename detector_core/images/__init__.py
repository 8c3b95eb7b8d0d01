"""From the bytes of an image or clip to pixels, and from pixels to the input of a network."""
