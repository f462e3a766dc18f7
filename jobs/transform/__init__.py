"""What happens to rows between bronze and silver (``transform:``)."""

from jobs.transform.transform import FAILED, Transform

__all__ = ["FAILED", "Transform"]
