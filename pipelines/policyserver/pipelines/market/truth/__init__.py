"""What tells whether a result is true: measures of episodes and their bands.

Imports `pipelines.market.bars`.
"""
