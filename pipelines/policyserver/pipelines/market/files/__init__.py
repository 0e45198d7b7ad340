"""Files of bars as people have them: dialects, times, checks, and a report of what is wrong. Imports numpy and pyarrow.

Imports `common` and `pipelines.market`.
"""
