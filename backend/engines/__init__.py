"""The embedded engines: real PostgreSQL, Valkey and Milvus servers out of wheels, for demo, tests and development.

Production names its own servers by URL and never comes here. Nothing of Django, and no wheel, is imported until needed.
"""
