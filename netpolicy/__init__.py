"""Compile one declarative network topology to firewalls, and give evidence that they hold."""
