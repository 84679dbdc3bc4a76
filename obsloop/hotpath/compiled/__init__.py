"""The compiled core: ``core``, one extension module, which exists if the package was built with a compiler."""
