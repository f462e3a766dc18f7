"""Our figures beside the plain way, in one run on one broker. Not part of the wheel."""
