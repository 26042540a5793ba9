"""The forbidden protocols themselves: real servers inside the lab's namespaces, and real clients."""
