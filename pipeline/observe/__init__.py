"""Seeing a running Headrace: the HTTP endpoint of a process, where endpoints are found, what they say."""
