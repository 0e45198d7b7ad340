"""The episode core: open episodes, their steps, and the hand-off to the learner. Owned by the loop thread.

Knows clients, sequence numbers, slots and pages; of RLlib only the form in which steps reach the learner. Imports policyserver, and of
the rest of the server only `policies.policy`, the seam to what decides, and the configuration.
"""
