"""RLlib's usual connectors as operations on whole batches of arrays. Imports `policies.policy` and `policies.module`."""
