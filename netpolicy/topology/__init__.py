"""The language: what a topology file may say, what is wrong with it, and the frozen result."""
