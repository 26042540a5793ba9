"""nftables rulesets from firewall intents: text for ``nft -f``, the artefact people read."""
