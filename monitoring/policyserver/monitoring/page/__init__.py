"""The live page: a small web server that shows an embedded store while it grows.

Imports the store, the panels, the schema and what else `monitoring/` declares, `policyserver.common`, starlette and uvicorn.
"""
