"""What every job shares: the command line, the connection to Ray, and work on many images in chunks."""
