"""What a policy did beside what others would have done on the same windows, in measures with bands, and at which cost its edge ends.

Imports `pipelines.market`, `pipelines.market.schemes.actions`, `pipelines.market.truth.measures` and `pipelines.prices`.
"""
