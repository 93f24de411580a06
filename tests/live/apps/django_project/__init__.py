"""The application in Django."""
