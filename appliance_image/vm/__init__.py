"""The image in QEMU: its firmware, TPM, network cards and console; the lab around it."""
