"""The model of rulesets against a kernel: any ruleset, packets that the model speaks of, and counters in every rule."""
