"""Forecasts of log-returns by River models: the only place that imports River. Imports the market's arrays.

Imports `common`, `pipelines.market` and `pipelines.market.schemes.scheme`.
"""
