"""Frames of every shape around a permitted connection: what an engine reads otherwise than the kernel behind it."""
