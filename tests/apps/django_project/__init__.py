"""The project in Django: views and settings by subject."""
