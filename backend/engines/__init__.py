"""The embedded engines: real PostgreSQL, Valkey and Milvus servers out of wheels.

They are for demo, tests and development; production names its own servers by URL. Only the commands need
Django, and no wheel is touched before its engine starts.
"""
