"""Proofs about rulesets as the kernel holds them, against what a topology demands."""
