"""The two ways of ``jobs.predict``: whole folders on Ray, and single files without it."""
