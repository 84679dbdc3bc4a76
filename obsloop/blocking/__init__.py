"""Find slow callbacks, slow iterations and blocked loops, and say why."""
