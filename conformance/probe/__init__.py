"""Probes: authored with scapy, frozen, sent in batches, and judged with four proofs."""
