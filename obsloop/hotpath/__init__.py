"""What happens for every callback, twice: `pure` in Python, `compiled` in Cython."""
