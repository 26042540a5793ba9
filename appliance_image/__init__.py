"""The appliance: its image, the bundles it accepts, what runs on it, and its usage records (使用記録)."""
