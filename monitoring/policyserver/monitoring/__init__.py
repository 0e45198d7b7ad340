"""What is recorded and how it is looked at: points, sinks, the live page. Of ours it imports only modules of `policyserver`."""
