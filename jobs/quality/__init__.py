"""Quality rules (``expect:``): compiled, judged, their results, what they hold back."""
