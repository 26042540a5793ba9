"""What runs on the appliance: boot stage by stage, apply, confirm, roll back, and tell what is so."""
