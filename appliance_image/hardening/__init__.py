"""How hard an image is: figures of units, files, ports, kernel settings and vulnerabilities, beside their limits."""
