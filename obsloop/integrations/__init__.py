"""Front doors: how programs that know nothing of obsloop come to run on an observed loop. Uses public names
only.
"""
