"""RLlib's own connector pipelines on live episodes, and the choice between them and array code.

Imports `policyserver.common` and all of `policies/`.
"""
