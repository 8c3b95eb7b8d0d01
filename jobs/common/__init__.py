"""What every job shares: its command line, Ray, and work in chunks."""
