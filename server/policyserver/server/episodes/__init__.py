"""The episode core: open episodes, their steps, and the hand-off to the learner. Owned by the loop thread.

Of what decides it knows the seam alone, `policies/policy.py`.

Imports `common`, `common.acting`, `server.config.serving_config` and `server.policies.policy`.
"""
