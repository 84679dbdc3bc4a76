"""Run programs that know nothing of obsloop on an observed loop."""
