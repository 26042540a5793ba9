"""How operators sign bundles: with a card (PKCS #11) and its PIN. None of it is on an appliance."""
