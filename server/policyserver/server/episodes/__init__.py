"""The episode core: open episodes, their steps, and the hand-off to the learner. Owned by the loop thread.

Imports `policyserver.common`; of the server only `policies.policy`, the seam to what decides, and `config.serving_config`.
"""
