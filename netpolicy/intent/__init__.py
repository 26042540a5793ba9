"""From the topology to each firewall: paths, routes and permits."""
