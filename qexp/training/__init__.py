"""Lightning modules, and how they are loaded, trained and run."""
