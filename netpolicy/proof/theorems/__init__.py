"""What is proven: each theorem is a module, and answers with what contradicts it."""
