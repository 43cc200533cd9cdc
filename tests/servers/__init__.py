"""Real servers in processes of their own; their logs are the oracle."""
