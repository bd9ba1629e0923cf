"""The watch inside other people's training loops. A module each; only that module imports the library."""
