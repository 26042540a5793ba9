"""The base image: packages, root, verity, kernel image, disk, and what is known about them."""
