"""Several runs beside each other: their metrics, paired differences, and what they differ in."""
