"""What is asked of each firewall, stage by stage; the verdicts expected are derived elsewhere."""
