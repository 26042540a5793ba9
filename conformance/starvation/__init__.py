"""One authorised source takes all that it can get; what is left for the others is measured."""
