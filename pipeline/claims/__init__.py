"""Claim check: a record above the message limit lies in a file store; its message carries the reference and a checksum."""
