"""How an operator reaches an appliance that has no shell: a few commands, over two layers of mutual TLS 1.3."""
