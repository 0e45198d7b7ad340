"""RLlib's own connector pipelines on live episodes, and the choice between them and array code. Imports all of `policies/`."""
