"""The host beneath the ruleset: kernel settings, interfaces, addresses, routes, neighbours."""
