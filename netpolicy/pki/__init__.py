"""A certification authority for the ends of a topology, in memory and in files."""
