"""The InfluxDB sink: settings, a spool on disk, requests.

Imports the points, the line protocol, the sinks' base, `policyserver.common` and, nowhere else, influxdb_client.
"""
