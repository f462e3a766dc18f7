"""From bronze rows to silver's: which records count, which are dead letters, and how the others fold into rows."""
