"""The InfluxDB sink: settings, a spool on disk, requests. Imports the schema, the points, the store's files and policyserver.common."""
