"""What certificates are for, beyond what is registered; of the standard library only, for appliances as well."""

SIGNS_BUNDLES = "2.25.147867447702393077282446476559493597981"
"""The extended key usage of operators' certificates: of a UUID, as anyone may make one (X.667, 7)."""
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"
"""The same of those who sign image updates (RFC 5280, 4.2.1.12)."""
