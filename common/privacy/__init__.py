"""What is promised about privacy, and what it costs: plans, budgets and the draws behind the noise."""
