"""The compiled core: ``core``, one extension module, which is there where the package was built with a compiler."""
