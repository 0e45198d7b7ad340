"""What is recorded and how it is looked at: points, sinks, the live page. Imports nothing of ours but policyserver.settings."""
